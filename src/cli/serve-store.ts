import { ExitStatus } from '../errors.js';
import { loadStore } from '../host/open-store.js';
import type { Store } from '../store/store.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'serve-store',
  operands: [],
  options: {},
  async run({ storeDir }) {
    const { Store: Stores } = await loadStore();
    const { StreamChannel } = await import('../store/copy/channel.js');
    const { serveCopies } = await import('../store/copy/sessions.js');
    let store: Store | undefined;
    try {
      const channel = new StreamChannel(process.stdin, process.stdout);
      let writes = false;
      await serveCopies(
        channel,
        (write) => {
          writes ||= write;
          store ??= Stores.open(storeDir, { write, create: write });
          return store;
        },
        { compress: true },
      );
      if (writes) await store?.tidy();
    } catch {
      return ExitStatus.failed; // The client has received the error and shows it.
    } finally {
      store?.close();
    }
    return 0;
  },
});
