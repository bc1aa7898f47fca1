/** Asks how many clones to make, and how to call them. */
import { useState } from 'preact/hooks';
import { send } from '../api.js';
import { attempt, say } from '../notice.js';
import type { Job } from '../state/types.js';

/** `path`: of the machine or snapshot in the API. `about`: its name. */
export async function fork(path: string, about: string, count: number, name = ''): Promise<void> {
  await send<Job>('POST', `${path}/fork`, { count, ...(name === '' ? {} : { name }) });
  say(`Forking ${about}`);
}

export function ForkForm({ path, about }: { readonly path: string; readonly about: string }) {
  const [count, setCount] = useState(5);
  const [name, setName] = useState('');
  const onSubmit = (event: Event): void => {
    event.preventDefault();
    void attempt(() => fork(path, about, count, name));
  };
  return (
    <form class="ask" onSubmit={onSubmit}>
      <button type="submit">Fork</button>
      <label>
        <input
          type="number"
          min={1}
          max={100}
          value={count}
          aria-label="Number of clones"
          onInput={(event) => setCount(event.currentTarget.valueAsNumber)}
        />{' '}
        clones
      </label>
      <label>
        named{' '}
        <input
          value={name}
          placeholder="free names"
          maxLength={60}
          onInput={(event) => setName(event.currentTarget.value)}
        />
      </label>
    </form>
  );
}
