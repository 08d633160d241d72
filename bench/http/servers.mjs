/** The servers that are asked in the http scenario: Millrace's, as people run it, and a plain handler that says the same. */
import { randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { living } from "../lib/rpc.mjs";
import { freePort, start, until } from "../lib/server-process.mjs";

const bench = join(import.meta.dirname, "..");
const NO_LIMITS = "api=0,ops=0,enqueue=0,stream=0";

async function listening(what, port, server) {
  const url = `http://127.0.0.1:${port}`;
  const stop = async () => {
    await server.stop();
    living.delete(stop);
  };
  living.add(stop);
  await until(what, server.ended, () => fetch(url));
  return { url, pid: server.pid, stop };
}

/**
 * `millrace up` with a token, its log written to a file, and limits for callers off. The worker that is part of it has a queue of its own,
 * in which nothing ever is: those that drain are other processes.
 */
export async function startApi(databaseUrl, dir) {
  const port = await freePort();
  const token = randomBytes(24).toString("base64url");
  const log = openSync(join(dir, "http.log"), "w");
  const env = {
    ...process.env,
    NODE_ENV: "production",
    DATABASE_URL: databaseUrl,
    API_TOKENS: `bench:operator:${token}`,
    PORT: `${port}`,
    MILLRACE_RATE_LIMITS: NO_LIMITS,
    MILLRACE_QUEUE: "nothing-in-here",
  };
  const args = [join(bench, "../dist/cli/main.js"), "up", "--json", "--app", join(bench, "http/app.mjs")];
  const flags = process.env.BENCH_API_FLAGS?.split(" ") ?? []; // to profile it
  const server = start(process.execPath, [...flags, ...args], {
    env,
    signal: "SIGTERM",
    stdio: ["pipe", log, "pipe"],
  });
  closeSync(log);
  return { ...(await listening("millrace up", port, server)), token };
}

/** @param answers what it is to say, as `plain.mjs` has it */
export async function startPlain(answers) {
  const port = await freePort();
  const server = start(process.execPath, [join(bench, "http/plain.mjs"), `${port}`], {
    env: { ...process.env, NODE_ENV: "production" },
    input: JSON.stringify(answers),
    signal: "SIGKILL",
  });
  return listening("the plain handler", port, server);
}
