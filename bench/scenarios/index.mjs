import backlog from "./backlog.mjs";
import bulk from "./bulk.mjs";
import drain from "./drain.mjs";
import idle from "./idle.mjs";
import latency from "./latency.mjs";
import memory from "./memory.mjs";
import mixed from "./mixed.mjs";
import single from "./single.mjs";
import snapshot from "./snapshot.mjs";

/** In the order in which they run. */
export const SCENARIOS = { bulk, single, drain, latency, idle, backlog, snapshot, mixed, memory };
