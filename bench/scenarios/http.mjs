import { fileURLToPath } from "node:url";
import { others } from "../lib/columns.mjs";
import { sleep } from "../lib/clock.mjs";
import { query } from "../lib/connect.mjs";
import { difference, snapshot } from "../lib/cpu.mjs";
import { payload } from "../lib/payload.mjs";
import { startChild } from "../lib/rpc.mjs";
import { openStage } from "../lib/stage.mjs";
import { startApi, startPlain } from "../http/servers.mjs";

const LOAD = fileURLToPath(new URL("../http/load.mjs", import.meta.url));
/** Enough for the inserts of POST to be shared by many, and for the server never to wait for its callers. No pipelining. */
const CONNECTIONS = 64;
const PER_SECOND = 50;
const PROBES_PER_SECOND = 50;
const WAITING = 1000;
const AHEAD = 20_000;
const UNDER_WAY_MS = 1000;

const WHEN = {
  alone: "alone",
  drain: "while 2 workers drain",
  full: "while 2 workers drain and POST /jobs is saturated",
};

export default {
  name: "http",
  title: `The API: ${CONNECTIONS} connections with a request each, and ${PER_SECOND} requests a second whether answered or not`,
  own: true,
  named: true,
  parts: (metrics) => metrics.parts,
  partName: "request",
  columns: [
    { title: "saturated, requests/s", value: (part) => part.saturated?.rate },
    { title: "plain handler", value: (part) => part.plain?.rate },
    { title: "share of plain", value: (part) => part.plain && part.saturated.rate / part.plain.rate },
    { title: "saturated, ms: p50", value: (part) => part.saturated?.p50 },
    { title: "p95", value: (part) => part.saturated?.p95 },
    { title: "p99", value: (part) => part.saturated?.p99 },
    { title: "paced, ms: p50", value: (part) => part.paced?.p50 },
    { title: "p95", value: (part) => part.paced?.p95 },
    { title: "p99", value: (part) => part.paced?.p99 },
    { title: "max", value: (part) => part.paced?.max },
    { title: "plain, paced: p95", value: (part) => part.plainPaced?.p95 },
    { title: "CPU API µs/request", value: (part) => part.cpu?.api },
    { title: "CPU server", value: (part) => part.cpu?.postgres },
    { title: "CPU callers", value: (part) => part.cpu?.callers },
    { title: "jobs/s meanwhile", value: (part) => part.drained },
    others,
  ],
  variants: ({ quick }) =>
    Object.entries(WHEN).map(([key, label]) => ({ key, label, seconds: quick ? 0.5 : 3, busy: key !== "alone" })),

  async run(env, contender, { key, seconds, busy }) {
    const stage = await openStage(env, contender, { workers: busy ? 2 : 1 });
    const open = [() => stage.close()];
    try {
      const api = await startApi(stage.url, env.servers.dir);
      open.push(api.stop);
      const [load, probe] = await Promise.all([1, 2].map(() => startChild("http", stage.url, undefined, LOAD)));
      open.push(load.kill, probe.kill);
      const calls = await callsOf(stage.url, api);
      const answers = await answersOf(load, calls);
      const first = { perSecond: 100, seconds: 1 }; // callers are warm, too, when they are timed
      await Promise.all([load, probe].map((one) => one.call("pace", calls["GET /health, of a stranger"], first)));
      const plain = await startPlain(answers);
      open.push(plain.stop);
      if (busy) await keepBusy(stage);
      else await stage.prefill(WAITING);
      const scene = { stage, api, plain, load, probe, calls, seconds, posted: 0 };
      const parts = key === "full" ? await atFullLoad(scene) : await oneByOne(scene, busy);
      return { parts, cpu: { others: Math.max(...Object.values(parts).map((part) => part.cpu.others)) } };
    } finally {
      for (const close of open.reverse()) await close();
    }
  },
};

/** What is asked, by its name in the table: what changes the number of jobs comes last. */
async function callsOf(url, { url: base, token }) {
  const [{ id }] = await query(url, "select id::text from millrace.jobs order by id limit 1");
  const known = { authorization: `Bearer ${token}` };
  const get = (path, headers = known) => ({ method: "GET", path, url: `${base}${path}`, headers });
  const body = JSON.stringify({ task: "posted", input: payload() });
  return {
    "GET /jobs, a hundred": get("/jobs"),
    "GET /jobs/:id": get(`/jobs/${id}`),
    "GET /api/queue/stats": get("/api/queue/stats"),
    "GET /metrics": get("/metrics"),
    "GET /metrics/prom": get("/metrics/prom"),
    "GET /health, of a stranger": get("/health", {}),
    "GET /api/health, with a token": get("/api/health"),
    "POST /jobs": {
      ...get("/jobs"),
      method: "POST",
      headers: { ...known, "content-type": "application/json" },
      body,
    },
  };
}

/** Asks for everything once: the plain handler says the same. */
async function answersOf(load, calls) {
  const answers = [];
  for (const [name, call] of Object.entries(calls)) {
    const { status, type, text } = await load.call("ask", call);
    if (status !== 200) throw new Error(`${name} was answered with ${status}: ${text}`);
    answers.push({ method: call.method, path: call.path, type, text });
  }
  return answers;
}

/** Workers drain, and a producer sees to it that they have something to drain until everything ends. */
async function keepBusy(stage) {
  await stage.startWorkers();
  stage.relay();
  stage.producer.call("feed", 3_600_000, { batch: 1000, most: AHEAD }).catch(() => {}); // ends with its process
  await sleep(UNDER_WAY_MS);
}

async function oneByOne(scene, busy) {
  const { load, plain, calls, seconds } = scene;
  const parts = {};
  for (const [name, call] of Object.entries(calls)) {
    const same = { ...call, url: `${plain.url}${call.path}` };
    const [saturate, pace] = [
      { connections: CONNECTIONS, seconds },
      { perSecond: PER_SECOND, seconds },
    ];
    const saturated = await observed(scene, () => load.call("saturate", call, saturate));
    const limit = await load.call("saturate", same, saturate);
    const paced = await load.call("pace", call, pace);
    const plainPaced = busy ? await load.call("pace", same, pace) : undefined;
    await allWell(scene, name, call, [saturated.result, paced], [limit, ...(plainPaced ? [plainPaced] : [])]);
    parts[name] = {
      saturated: saturated.result,
      plain: limit,
      paced,
      plainPaced,
      cpu: saturated.cpu,
      drained: busy ? saturated.drained : undefined,
    };
  }
  return parts;
}

/** Health is asked for, evenly, while as many jobs come in as can, and are drained. */
async function atFullLoad(scene) {
  const { load, probe, calls, seconds } = scene;
  const post = calls["POST /jobs"];
  const health = Object.entries(calls).filter(([, { path }]) => path.endsWith("/health"));
  for (const [name, call] of [...health, ["POST /jobs", post]]) {
    const warmUp = { connections: CONNECTIONS, seconds: call === post ? seconds : seconds / 10 };
    await allWell(scene, name, call, [await load.call("saturate", call, warmUp)]);
  }
  let over = false;
  const flood = async () => {
    const floods = [];
    while (!over) floods.push(await load.call("saturate", post, { connections: CONNECTIONS, seconds }));
    return floods;
  };
  const asked = async () => {
    const parts = {};
    try {
      for (const [name, call] of health) {
        const paced = await probe.call("pace", call, { perSecond: PROBES_PER_SECOND, seconds: seconds * 2 });
        await allWell(scene, name, call, [paced]);
        parts[name] = { paced };
      }
    } finally {
      over = true;
    }
    return parts;
  };
  const seen = await observed(scene, () => Promise.all([flood(), asked()]));
  const [floods, parts] = seen.result;
  await allWell(scene, "POST /jobs", post, floods);
  const { cpu, drained } = seen;
  for (const part of Object.values(parts)) Object.assign(part, { cpu: { others: cpu.others }, drained });
  return { ...parts, "POST /jobs": { saturated: floods.at(-1), cpu: { others: cpu.others }, drained } };
}

/** What it took: CPU of each kind of process by request, and jobs that were drained meanwhile. */
async function observed({ stage, api, load }, work) {
  const pids = { ...stage.pids(), api: api.pid, callers: load.pid };
  const [before, from, done] = [snapshot(pids), performance.now(), stage.total()];
  const result = await work();
  const used = difference(before, snapshot(pids));
  const drained = ((stage.total() - done) * 1000) / (performance.now() - from);
  if (!used) throw new Error("CPU time can only be read on Linux");
  const micros = (seconds) => (seconds / (result.ok ?? 1)) * 1e6;
  const cpu = {
    api: micros(used.api),
    postgres: micros(used.postgres),
    callers: micros(used.callers),
    others: used.others / used.seconds,
  };
  return { result, cpu, drained };
}

/** Every request was answered with a 2xx, and there are as many jobs as were accepted. */
async function allWell(scene, name, { method }, asked, ofOthers = []) {
  const bad = [...asked, ...ofOthers].flatMap((one) => one.bad);
  if (bad.length > 0) throw new Error(`${name}: not all were answered with a 2xx, but ${bad.join(", ")}`);
  if (method !== "POST") return;
  scene.posted += asked.reduce((sum, one) => sum + one.ok, 0);
  const [{ found }] = await query(
    scene.stage.url,
    "select count(*)::int as found from millrace.jobs where task = (select id from millrace.tasks where name = 'posted')",
  );
  const accepted = scene.posted + 1; // the one that was asked for its answer
  if (found !== accepted) throw new Error(`${accepted} jobs were accepted over HTTP, but there are ${found}`);
}
