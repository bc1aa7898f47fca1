/**
 * The page of a host: signs in, watches the host, and shows the view that the address names.
 *
 * Text of guests and of files is only ever text: nothing here makes HTML of a string.
 */
import { render } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { whenSignedOut } from './api.js';
import { watchHost } from './connection.js';
import { type Notice, whenNoticed } from './notice.js';
import { signIn } from './session.js';
import { afterEvent, type HostModel } from './state/host-model.js';
import { chooseStore, showsStore } from './store-choice.js';
import { MachineView } from './views/machine.js';
import { Overview } from './views/overview.js';
import { SignIn } from './views/sign-in.js';
import { SnapshotView } from './views/snapshot.js';

const CLOCK_MS = 10_000;
const NOTICE_MS = 8000;

const timeOf = (date: Date): string => date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

function useHash(): string {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const onChange = (): void => {
      setHash(location.hash);
      scrollTo(0, 0);
    };
    addEventListener('hashchange', onChange);
    return () => removeEventListener('hashchange', onChange);
  }, []);
  return hash;
}

/** Ages are shown anew from time to time, and whenever anything else is. */
function useNow(): number {
  const [, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((tick) => tick + 1), CLOCK_MS);
    return () => clearInterval(timer);
  }, []);
  return Date.now();
}

function Page() {
  const [isSignedIn, setSignedIn] = useState<boolean | null>(null);
  const [model, setModel] = useState<HostModel | null>(null);
  const [lostAt, setLostAt] = useState<Date | null>(null);
  const [notice, setNotice] = useState<Notice | null>(null);
  const hash = useHash();
  const nowMs = useNow();
  useEffect(() => {
    whenNoticed(setNotice);
    whenSignedOut(() => setSignedIn(false));
    signIn().then(setSignedIn, () => setSignedIn(false));
  }, []);
  useEffect(() => {
    if (!isSignedIn) return;
    void watchHost({
      onEvent: (type, data) => {
        if (type === 'state') {
          const { store, stores } = (data as HostModel).host;
          showsStore(store, stores.length === 1);
        }
        setModel((old) => afterEvent(old, type, data, performance.now()));
      },
      onConnection: setLostAt,
    });
  }, [isSignedIn]);
  useEffect(() => {
    if (notice === null || notice.isBad) return;
    const timer = setTimeout(() => setNotice(null), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [notice]);
  useEffect(() => {
    document.title = model === null ? 'livesnap' : `${model.host.name} – livesnap`;
  }, [model?.host.name]);

  if (isSignedIn === null) return null;
  if (!isSignedIn) return <SignIn />;
  return (
    <div class={lostAt === null ? '' : 'stale'}>
      <header class="head">
        <h1>
          <a href="#/">livesnap</a>
        </h1>
        {model !== null && (
          <span class="where">
            {model.host.name}
            <span class="quiet host">
              {' '}
              · {model.host.kvm}
              {model.host.stores.length === 1 && ` · store ${model.host.storeDir}`}
            </span>
          </span>
        )}
        {model !== null && model.host.stores.length > 1 && <StoreChoice {...model.host} />}
        <span class={`live ${lostAt === null ? 'quiet' : 'bad'}`} role="status">
          {lostAt !== null
            ? `Not connected since ${timeOf(lostAt)}`
            : model === null
              ? 'connecting …'
              : '● live'}
        </span>
      </header>
      {model === null ? <main /> : <View {...{ hash, model, nowMs }} />}
      {notice !== null && (
        <div class="toast" role={notice.isBad ? 'alert' : 'status'}>
          <span>{notice.text}</span>
          <button type="button" onClick={() => setNotice(null)}>
            Close
          </button>
        </div>
      )}
    </div>
  );
}

/** Another store is shown by a new start of the page, which forgets all of this one. */
function StoreChoice({ store, stores }: Pick<HostModel['host'], 'store' | 'stores'>) {
  const choose = (name: string): void => {
    chooseStore(name);
    history.replaceState(null, '', '#/');
    location.reload();
  };
  return (
    <label class="stores">
      <span class="quiet">store </span>
      <select value={store} onChange={({ currentTarget }) => choose(currentTarget.value)}>
        {stores.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function View({ hash, model, nowMs }: { hash: string; model: HostModel; nowMs: number }) {
  const [, room, id, open = null] = /^#\/(machines|snapshots)\/([^/]+)(?:\/([a-z]+))?$/.exec(hash) ?? [];
  const machine =
    room === 'machines' ? model.machines.find((each) => each.id === id || each.name === id) : undefined;
  if (machine !== undefined) return <MachineView {...{ machine, model, nowMs, open }} />;
  const snapshot = room === 'snapshots' ? model.snapshots.find((each) => each.id === id) : undefined;
  if (snapshot !== undefined) return <SnapshotView {...{ snapshot, model, nowMs }} />;
  return (
    <>
      {room !== undefined && (
        <p class="problem">
          {room === 'machines' ? 'That machine has ended.' : 'That snapshot was deleted.'}
        </p>
      )}
      <Overview model={model} nowMs={nowMs} />
    </>
  );
}

/** j, k and the arrow keys move between rows, / goes to the filter, and Escape goes back. */
function onKey(event: KeyboardEvent): void {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || !(target instanceof HTMLElement)) return;
  if (target.closest('input, select, textarea, .console')) return;
  const step = ({ j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 } as Record<string, number>)[key];
  if (step !== undefined && (key.length === 1 || target.closest('.row'))) {
    const rows = [...document.querySelectorAll<HTMLElement>('[data-row]')];
    const at = rows.findIndex((row) => row.closest('.row') === target.closest('.row'));
    rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))]?.focus();
  } else if (key === '/') document.querySelector<HTMLElement>('[data-filter]')?.focus();
  else if (key === 'Escape' && location.hash.length > 2 && !target.closest('.ask')) location.hash = '#/';
  else return;
  event.preventDefault();
}

document.addEventListener('keydown', onKey);
render(<Page />, document.getElementById('page')!);
