/** One thread or one process that runs a task's handler: started, spoken to, killed; and what can be told of its end. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { IsolateRule } from "./options.ts";
import type { FromIsolate, ToIsolate } from "./protocol.ts";

export interface Vessel {
  /** Throws when the message cannot be cloned. */
  tell(message: ToIsolate): void;
  /** Ends it at once, whatever it does. */
  kill(): void;
  /** Lets what it left behind end in order, then ends it. For one that runs nothing. */
  dismiss(): void;
  /** Resolves when it has ended, with how: `exited with code 1`, `was killed by SIGKILL`. Nothing is heard of it afterwards. */
  readonly ended: Promise<End>;
}

export interface End {
  readonly how: string;
  readonly outOfMemory: boolean;
}

/** What is kept of a process's last lines on standard error, to find its reason in. */
const stderrTail = 4_096;
/** What a dead process has said may still be under way. */
const echoMs = 200;
const dismissMs = 500;

/** Where TypeScript sources run as they are, as in this project's own tests, the entry needs what loads it; built, it needs nothing. */
const isSource = import.meta.url.endsWith(".ts");
const entry = new URL(isSource ? "./entry.ts" : "./entry.js", import.meta.url);

export function launch(rule: IsolateRule, module: string, hear: (message: FromIsolate) => void): Vessel {
  return rule.in === "thread" ? thread(rule, module, hear) : child(rule, module, hear);
}

function thread({ memoryMb }: IsolateRule, module: string, hear: (message: FromIsolate) => void): Vessel {
  const bootstrap = `import { register } from ${JSON.stringify(isSource && import.meta.resolve("tsx/esm/api"))}; register(); await import(${JSON.stringify(entry.href)});`;
  const worker = new Worker(isSource ? new URL(`data:text/javascript,${encodeURIComponent(bootstrap)}`) : entry, {
    workerData: { module },
    ...(memoryMb === undefined ? {} : { resourceLimits: { maxOldGenerationSizeMb: memoryMb } }),
  });
  let outOfMemory = false;
  let error = "";
  worker.on("message", hear);
  worker.on("error", (thrown: unknown) => {
    outOfMemory = (thrown as { code?: unknown } | null)?.code === "ERR_WORKER_OUT_OF_MEMORY";
    error = thrown instanceof Error ? `: ${thrown.message}` : "";
  });
  return {
    tell: (message) => worker.postMessage(message),
    kill: () => void worker.terminate(),
    dismiss: () => void worker.terminate(),
    ended: new Promise((resolve) => {
      worker.once("exit", (code) =>
        resolve({ how: `exited with code ${code}${outOfMemory ? "" : error}`, outOfMemory }),
      );
    }),
  };
}

/** This process's own options, without those that make no sense for another one. */
function inheritedOptions(): string[] {
  const { execArgv } = process;
  return execArgv.filter((option, i) => {
    const isCode = /^(-[ep]|-pe|--eval|--print)$/;
    return (
      !isCode.test(option) &&
      !isCode.test(execArgv[i - 1] ?? "") &&
      !/^--(inspect|watch|test|input-type|max-old-space-size)/.test(option)
    );
  });
}

function child({ memoryMb }: IsolateRule, module: string, hear: (message: FromIsolate) => void): Vessel {
  const forked = fork(fileURLToPath(entry), [module, String(process.pid)], {
    execArgv: [
      ...inheritedOptions(),
      ...(isSource ? ["--import", import.meta.resolve("tsx")] : []),
      ...(memoryMb === undefined ? [] : [`--max-old-space-size=${memoryMb}`]),
    ],
    serialization: "advanced",
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  let stderr = "";
  forked.stderr?.on("data", (chunk: Buffer) => {
    process.stderr.write(chunk);
    stderr = (stderr + chunk.toString()).slice(-stderrTail);
  });
  let failed = "";
  forked.on("message", (message) => hear(message as FromIsolate));
  forked.on("error", (error) => {
    failed = `: ${error.message}`;
  });
  return {
    tell: (message) => void forked.send(message, () => undefined),
    kill: () => void forked.kill("SIGKILL"),
    dismiss() {
      if (forked.connected) forked.disconnect();
      const timer = setTimeout(() => forked.kill("SIGKILL"), dismissMs);
      forked.once("exit", () => clearTimeout(timer));
    },
    ended: endOf(forked).then(([code, signal]) => ({
      how: signal === null ? `exited with code ${code}${failed}` : `was killed by ${signal}${failed}`,
      // V8 says so and aborts
      outOfMemory: /heap out of memory/.test(stderr),
    })),
  };
}

/** Exit code and signal, once everything it said has been heard. A process that could not be started has neither. */
async function endOf(child: ChildProcess): Promise<[code: number | null, signal: string | null]> {
  const closed = once(child, "close").catch(() => undefined);
  await new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => child.pid === undefined && resolve());
  });
  // A grandchild that holds standard error open must not keep us.
  await Promise.race([closed, pause(echoMs)]);
  return [child.exitCode, child.signalCode];
}
