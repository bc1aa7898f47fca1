/** The console of a machine, live. Its code is loaded when it is opened. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Machine } from '../state/types.js';
import { apiPath } from './machine-row.js';

export function Console({ machine }: { machine: Machine }) {
  const element = useRef<HTMLDivElement>(null);
  const [ended, setEnded] = useState<string | null>(null);
  const [tries, setTries] = useState(0);
  const path = `${apiPath(machine)}/console`;
  useEffect(() => {
    let close = (): void => {};
    let isGone = false;
    setEnded(null);
    void import('./terminal.js').then(
      ({ openConsole }) => {
        if (isGone) return;
        const opened = openConsole(element.current!, path, (how) => setEnded((old) => old ?? how));
        close = () => opened.close();
      },
      () => setEnded('The terminal could not be loaded.'),
    );
    return () => {
      isGone = true;
      close();
    };
  }, [path, tries]);
  return (
    <div>
      <div class="console" ref={element} />
      {ended !== null && (
        <p class="ask">
          <span>{ended}</span>
          <button type="button" onClick={() => setTries(tries + 1)}>
            Connect again
          </button>
        </p>
      )}
    </div>
  );
}
