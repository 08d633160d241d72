/** What every fault test begins with: a migrated database, a producer's Millrace, somebody who looks on, and a crew to be sent in. */
import { type Millrace, type MillraceOptions, defineApp, millrace } from "millrace";
import { testDatabase } from "../../support/database.ts";
import { faultTables } from "../fixtures/tasks.ts";
import type { WorkerOrders } from "../fixtures/worker.ts";
import { type Child, Crew } from "./children.ts";
import { Observer } from "./ledger-proof.ts";

const nothing = defineApp({ tasks: [] });

export class Scene implements AsyncDisposable {
  /** The database itself, by no detour. */
  readonly url: string;
  readonly mill: Millrace;
  readonly observer: Observer;
  readonly crew: Crew;
  /** What ends with the scene, the last one first. */
  readonly #props: AsyncDisposable[];

  private constructor(url: string, mill: Millrace, observer: Observer, props: AsyncDisposable[]) {
    this.url = url;
    this.mill = mill;
    this.observer = observer;
    this.crew = new Crew();
    this.#props = [...props, observer, mill, this.crew];
  }

  /** In a new database of the tests' server, or in the one given. */
  static async set(url?: string): Promise<Scene> {
    const props: AsyncDisposable[] = [];
    try {
      const database = url === undefined ? await testDatabase() : undefined;
      if (database) props.push(database);
      if (database?.backend === "pglite") throw new Error("The fault tests run in the project `postgres`.");
      const at = url ?? (database as { url: string }).url;
      const mill = await millrace(nothing, { databaseUrl: at });
      const observer = await Observer.on(at);
      await observer.client.query(faultTables);
      return new Scene(at, mill, observer, props);
    } catch (error) {
      for (const prop of props) await prop[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Takes something on that ends with the scene. */
  use<Prop extends AsyncDisposable>(prop: Prop): Prop {
    this.#props.push(prop);
    return prop;
  }

  /** Another Millrace of this process. */
  async open(options: MillraceOptions): Promise<Millrace> {
    return this.use(await millrace(nothing, { migrate: false, ...options }));
  }

  /** Enqueues `count` jobs of a task; `ms` says how long each takes. Returns their ids. */
  async enqueue(task: string, count: number, ms: (n: number) => number = () => 0): Promise<string[]> {
    return this.mill.enqueueMany(
      task,
      Array.from({ length: count }, (_, n) => ({ ms: ms(n) })),
    );
  }

  /** A worker process that has begun to work. */
  worker(orders: Partial<WorkerOrders> = {}): Promise<Child> {
    return this.crew.worker({ url: this.url, ...orders });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const prop of this.#props.reverse()) await prop[Symbol.asyncDispose]();
  }
}
