/** Who asks. Bull Board hands its adapters no request, and requests that come at once share them: so it travels with the call itself. */
import { AsyncLocalStorage } from "node:async_hooks";

const asking = new AsyncLocalStorage<string>();

/** Of those without a name. */
const unnamed = "bull-board";

export const asked = <Answer>(name: string | null | undefined, work: () => Answer): Answer =>
  asking.run(name ?? unnamed, work);

/** For the history of jobs and queues, and the audit. */
export const by = (): string => asking.getStore() ?? unnamed;
