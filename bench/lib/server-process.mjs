/** Server processes that belong to the benchmark. */
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { sleep } from "./clock.mjs";

/** On loopback. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Asks until there is an answer, for 15 s. */
export async function until(what, exited, probe) {
  for (let attempt = 0; attempt < 150; attempt++) {
    if (exited()) throw new Error(`${what} ended during its start:\n${exited()}`);
    try {
      return await probe();
    } catch {
      await sleep(100);
    }
  }
  throw new Error(`${what} did not answer within 15 s`);
}

/** Starts a server process that must not end by itself; `stop` sends `signal` and waits. */
export function start(command, args, { signal, input, ...options }) {
  const child = spawn(command, args, { stdio: ["pipe", "ignore", "pipe"], ...options });
  let log = "";
  let ended = null;
  child.stderr.on("data", (chunk) => (log = (log + chunk).slice(-4000)));
  child.on("error", (error) => (ended = error.message));
  const gone = new Promise((resolve) => child.once("exit", resolve)).then(
    (code) => (ended ??= `exit code ${code}\n${log}`),
  );
  child.stdin.end(input ?? "");
  const stop = async () => {
    if (ended) return;
    child.kill(signal);
    await gone;
  };
  return { pid: child.pid, ended: () => ended, stop };
}
