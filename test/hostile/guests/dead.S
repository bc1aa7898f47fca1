/* Says it is done and halts with interrupts off: a machine that is alive and will never do anything again. */
#include "guest.inc"
  BEGIN
  SAY_DONE
  HALT
