/** Buttons that do something to a machine or the store. */
import { useState } from 'preact/hooks';
import { attempt } from '../notice.js';

interface Work {
  readonly label: string;
  /** What a screen reader says, with the name of the thing. */
  readonly about: string;
  readonly work: () => Promise<unknown>;
}

/** Does its work at a click, once at a time. */
export function Do({ label, about, work }: Work) {
  const [isBusy, setBusy] = useState(false);
  const onClick = async (): Promise<void> => {
    setBusy(true);
    await attempt(work);
    setBusy(false);
  };
  return (
    <button type="button" aria-label={`${label} ${about}`} disabled={isBusy} onClick={onClick}>
      {label}
    </button>
  );
}

/** Asks in its place before it does what cannot be undone. */
export function DoAfterAsking({ label, about, question, work }: Work & { readonly question: string }) {
  const [isAsking, setAsking] = useState(false);
  if (!isAsking)
    return (
      <button type="button" aria-label={`${label} ${about}`} onClick={() => setAsking(true)}>
        {label}…
      </button>
    );
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') setAsking(false);
  };
  return (
    <fieldset class="ask" aria-label={question} onKeyDown={onKeyDown}>
      <span>{question}</span>
      <Do label={label} about={about} work={() => work().finally(() => setAsking(false))} />
      <button type="button" ref={(button) => button?.focus()} onClick={() => setAsking(false)}>
        Cancel
      </button>
    </fieldset>
  );
}
