/** The callers of an HTTP server, in a process of their own. Answers that are not a 2xx are counted as bad, by status; so is what gets none, by why. */
import { Agent, request } from "node:http";
import autocannon from "autocannon";
import { now, sleep } from "../lib/clock.mjs";
import { offer } from "../lib/commands.mjs";
import { percentile } from "../lib/numbers.mjs";

const FIRST_EACH = 4;
/** Of the time that is measured. Until then code is compiled, caches are filled. */
const WARM_UP_SHARE = 0.6;

const summary = (ms) => ({
  p50: percentile(ms, 50),
  p95: percentile(ms, 95),
  p99: percentile(ms, 99),
  max: percentile(ms, 100),
});

const rateOf = ({ took, seconds }) => took.length / seconds;

/** Answers by status, or by why there was none; how many were 2xx, and what the others were. */
function tally(counts) {
  const all = Object.entries(counts).filter(([, count]) => count > 0);
  const [good, bad] = [true, false].map((want) => all.filter(([status]) => status.startsWith("2") === want));
  return {
    ok: good.reduce((sum, [, count]) => sum + count, 0),
    bad: bad.map(([status, count]) => `${status} × ${count}`),
  };
}

/** So many requests, each connection with one under way. All of them are answered before it ends. */
function together(call, { connections, amount }) {
  return new Promise((resolve, reject) => {
    const took = [];
    const counts = {};
    let last = 0;
    const from = now();
    const run = autocannon({ ...call, connections, amount }, (error, { errors, timeouts } = {}) => {
      if (error) return reject(error);
      return resolve({
        took,
        ...tally({ ...counts, errors: errors - timeouts, timeouts }),
        seconds: (last - from) / 1000,
      });
    });
    run.on("response", (_, status, __, ms) => {
      last = now();
      took.push(ms);
      counts[status] = (counts[status] ?? 0) + 1;
    });
  });
}

/** One request; when it was answered, and with what. */
function once({ url, method, headers, body }, agent) {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (text += chunk));
      response.on("error", reject);
      response.on("end", () => {
        const { statusCode: status, headers: got } = response;
        resolve({ at: now(), status, type: got["content-type"] ?? "", text });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

offer({
  /** What the server answers. */
  ask: (call) => once(call),

  /** As many requests as the server answers in about so many seconds, after more than half as long of the same. */
  async saturate(call, { connections, seconds }) {
    const all = [await together(call, { connections, amount: connections * FIRST_EACH })];
    for (const share of [WARM_UP_SHARE, 1]) {
      const amount = Math.round(rateOf(all.at(-1)) * seconds * share);
      all.push(await together(call, { connections, amount: Math.max(connections, amount) }));
    }
    const done = all.at(-1);
    return {
      ok: all.reduce((sum, one) => sum + one.ok, 0),
      bad: all.flatMap((one) => one.bad),
      rate: rateOf(done),
      ...summary(done.took),
    };
  },

  /** So many requests a second, evenly, whether the ones before are answered or not; each is timed from the moment it was due. */
  async pace(call, { perSecond, seconds }) {
    const agent = new Agent({ keepAlive: true });
    const due = now() + 100;
    const answers = [];
    for (let n = 0; n < perSecond * seconds; n++) {
      const at = due + (n * 1000) / perSecond;
      if (at > now()) await sleep(at - now());
      const answered = once(call, agent).then(
        (answer) => ({ status: answer.status, ms: answer.at - at }),
        (error) => ({ status: error.code ?? error.message, ms: Number.POSITIVE_INFINITY }),
      );
      answers.push(answered);
    }
    const all = await Promise.all(answers);
    agent.destroy();
    const counts = {};
    for (const { status } of all) counts[status] = (counts[status] ?? 0) + 1;
    return { ...tally(counts), ...summary(all.map(({ ms }) => ms)) };
  },
});
