import backlog from "./backlog.mjs";
import bulk from "./bulk.mjs";
import drain from "./drain.mjs";
import history from "./history.mjs";
import idle from "./idle.mjs";
import keys from "./keys.mjs";
import latency from "./latency.mjs";
import memory from "./memory.mjs";
import mixed from "./mixed.mjs";
import queues from "./queues.mjs";
import rates from "./rates.mjs";
import single from "./single.mjs";
import snapshot from "./snapshot.mjs";

/** In the order in which they run. */
export const SCENARIOS = {
  bulk,
  single,
  drain,
  latency,
  idle,
  backlog,
  snapshot,
  mixed,
  queues,
  keys,
  rates,
  history,
  memory,
};
