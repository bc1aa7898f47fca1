/* Reports that it is done, then halts forever with interrupts off. The machine stays alive. */
#include "guest.inc"
  BEGIN
  SAY_DONE
  HALT
