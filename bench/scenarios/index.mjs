import backlog from "./backlog.mjs";
import bulk from "./bulk.mjs";
import delayed from "./delayed.mjs";
import drain from "./drain.mjs";
import flows from "./flows.mjs";
import history from "./history.mjs";
import http from "./http.mjs";
import idle from "./idle.mjs";
import keys from "./keys.mjs";
import latency from "./latency.mjs";
import memory from "./memory.mjs";
import mixed from "./mixed.mjs";
import queues from "./queues.mjs";
import rates from "./rates.mjs";
import schedules from "./schedules.mjs";
import single from "./single.mjs";
import snapshot from "./snapshot.mjs";
import steps from "./steps.mjs";

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
  schedules,
  delayed,
  flows,
  steps,
  http,
  history,
  memory,
};
