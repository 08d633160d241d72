/** The harness's end of a child process: call its commands, hear its events, end it. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { within } from "./clock.mjs";

const CHILD = fileURLToPath(new URL("../child.mjs", import.meta.url));
const START_MS = 30_000;
/** What ends the processes of a run: whoever starts one by other means adds it. */
export const living = new Set();

/** For the end of a run that went wrong: nothing of it stays behind. */
export const killChildren = () => Promise.all([...living].map((kill) => kill()));

/** The line of a process's last words that tells why. */
function lastError(said) {
  const lines = said.split("\n").filter(Boolean);
  return lines.findLast((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1) ?? "it said nothing";
}

/**
 * @param {(event: { event: string, done?: number }) => void} onEvent
 * @param {string} program what it runs, if it is not a contender's producer or worker
 */
export async function startChild(contender, url, onEvent = () => {}, program = CHILD) {
  const env = { ...process.env, BENCH_URL: url, NODE_ENV: "production", NO_COLOR: "1" };
  const child = fork(program, [contender], { env, execArgv: [], stdio: ["ignore", "ignore", "pipe", "ipc"] });
  const calls = new Map();
  let said = "";
  let nextId = 1;
  let ready;
  const opened = new Promise((resolve, reject) => (ready = { resolve, reject }));
  const fail = (reason) => {
    ready.reject(reason);
    for (const call of calls.values()) call.reject(reason);
    calls.clear();
  };
  child.stderr.on("data", (chunk) => (said = (said + chunk).slice(-2000)));
  child.on("error", fail);
  const exited = new Promise((resolve) => child.once("close", resolve));
  void exited.then((code) => fail(new Error(`the ${contender} process ended (${code}): ${lastError(said)}`)));
  child.on("message", (message) => {
    if (message.event === "ready") return ready.resolve();
    if (message.event === "error") return fail(new Error(message.error));
    if (message.event) return onEvent(message);
    const call = calls.get(message.id);
    calls.delete(message.id);
    if (message.error) call?.reject(new Error(message.error));
    else call?.resolve(message.value);
  });

  const call = (command, ...args) =>
    new Promise((resolve, reject) => {
      const id = nextId++;
      calls.set(id, { resolve, reject });
      child.send({ id, command, args }, (error) => error && reject(error));
    });
  const kill = async () => {
    living.delete(kill);
    child.kill("SIGKILL");
    await exited;
  };
  living.add(kill);
  await within(START_MS, `start of ${contender}`, opened).catch(async (error) => {
    await kill();
    throw error;
  });
  return {
    pid: child.pid,
    call,
    tell: (message) => child.send(message, () => {}),
    kill,
  };
}
