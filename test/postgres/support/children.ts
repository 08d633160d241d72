/**
 * The processes of a test, gone when their scope is left, however the test ends:
 *
 *     await using crew = new Crew();
 *     const child = crew.start("worker", { url });
 *
 * They run compiled: a worker that is killed and started a hundred times a minute has no time to be translated each time. Should
 * this process be killed itself, they see the pipe close and exit.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { builtFixtures } from "../../support/build.ts";
import type { ProducerOrders } from "../fixtures/producer.ts";
import type { ServerOrders } from "../fixtures/server.ts";
import type { Told } from "../fixtures/tell.ts";
import type { WorkerAsk, WorkerOrders } from "../fixtures/worker.ts";

interface Orders {
  readonly worker: WorkerOrders;
  readonly producer: ProducerOrders;
  readonly server: ServerOrders;
}

export class Crew implements AsyncDisposable {
  readonly children: Child[] = [];

  start<Kind extends keyof Orders>(kind: Kind, orders: Orders[Kind]): Child {
    const child = new Child(
      spawn(process.execPath, ["--enable-source-maps", join(builtFixtures(), `${kind}.js`), JSON.stringify(orders)], {
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      }),
    );
    this.children.push(child);
    return child;
  }

  /** Starts a worker and waits until it is registered and listening. */
  async worker(orders: WorkerOrders): Promise<Child> {
    const child = this.start("worker", orders);
    await child.hears("ready");
    return child;
  }

  get living(): Child[] {
    return this.children.filter((child) => child.alive);
  }

  /** Errors nobody handled, of all children so far. */
  get unhandled(): string[] {
    return this.children.flatMap((child) => child.all("unhandled").map(({ error }) => error));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.living.map((child) => child.kill()));
  }
}

type Kind = Told["kind"];
type Of<Wanted extends Kind> = Extract<Told, { kind: Wanted }>;

export class Child {
  readonly pid: number;
  readonly told: Told[] = [];
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #listeners = new Set<() => void>();

  constructor(child: ChildProcess) {
    if (child.pid === undefined) throw new Error("The child process could not be started.");
    this.pid = child.pid;
    this.#process = child;
    this.#exited = once(child, "exit").then(() => this.#wake());
    child.on("message", (message: Told) => {
      this.told.push(message);
      this.#wake();
    });
  }

  get alive(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Resolves when the process is gone. */
  async gone(): Promise<void> {
    await this.#exited;
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.alive) this.#process.kill(signal);
    await this.#exited;
  }

  /** Suspends the process, or lets it go on. */
  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#process.kill(signal);
  }

  say(ask: WorkerAsk): void {
    this.#process.send(ask, () => undefined); // it may be gone by now; then it says nothing
  }

  all<Wanted extends Kind>(kind: Wanted): Of<Wanted>[] {
    return this.told.filter((told): told is Of<Wanted> => told.kind === kind);
  }

  /** The first message of this kind that fits, told already or to come. Rejects when the process ends without one. */
  async hears<Wanted extends Kind>(
    kind: Wanted,
    fits: (told: Of<Wanted>) => boolean = () => true,
    withinMs = 30_000,
  ): Promise<Of<Wanted>> {
    const find = (): Of<Wanted> | undefined => this.all(kind).find(fits);
    const found = find();
    if (found) return found;
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        this.#listeners.delete(look);
        settle();
      };
      const look = (): void => {
        const now = find();
        if (now) end(() => resolve(now));
        else if (!this.alive) end(() => reject(new Error(`Process ${this.pid} ended without telling "${kind}".`)));
      };
      const timer = setTimeout(
        () => end(() => reject(new Error(`Process ${this.pid} did not tell "${kind}" within ${withinMs} ms.`))),
        withinMs,
      );
      this.#listeners.add(look);
    });
  }

  /** How much memory a worker's process has, in bytes. */
  async memory(): Promise<number> {
    const before = this.all("memory").length;
    this.say({ ask: "memory" });
    return (await this.hears("memory", (told) => this.all("memory").indexOf(told) >= before)).bytes;
  }

  /** Asks a worker to stop, and waits until its process is gone. */
  async stop(within = 20_000): Promise<Of<"stopped">> {
    this.say({ ask: "stop", within });
    const stopped = await this.hears("stopped", undefined, within + 60_000);
    await this.#exited;
    return stopped;
  }

  #wake(): void {
    for (const look of this.#listeners) look();
  }
}
