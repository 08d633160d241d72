/** Remembers the numbers of queue and task names. Numbers are never given again, so what was learnt stays true. */
import { MillraceError } from "../core/errors.ts";
import { didYouMean } from "../core/options.ts";
import type { Database, Executor } from "../db/database.ts";
import {
  addQueues,
  addTasks,
  findQueues,
  findTasks,
  nameOfQueue,
  nameOfTask,
  queueNames,
  taskNames,
} from "./names-store.ts";

interface Room {
  find(db: Executor, names: readonly string[]): Promise<readonly { id: number; name: string }[]>;
  add(db: Executor, names: readonly string[]): Promise<void>;
  nameOf(db: Executor, id: number): Promise<string>;
  all(db: Executor): Promise<readonly string[]>;
  readonly what: "queue" | "task";
}

export class Names {
  readonly queues: NameTable;
  readonly tasks: NameTable;

  constructor(db: Database) {
    this.queues = new NameTable(db, {
      what: "queue",
      find: findQueues,
      add: addQueues,
      nameOf: nameOfQueue,
      all: queueNames,
    });
    this.tasks = new NameTable(db, {
      what: "task",
      find: findTasks,
      add: addTasks,
      nameOf: nameOfTask,
      all: taskNames,
    });
  }
}

class NameTable {
  readonly #ids = new Map<string, number>();
  readonly #namesById = new Map<number, string>();
  readonly #db: Database;
  readonly #room: Room;

  constructor(db: Database, room: Room) {
    this.#db = db;
    this.#room = room;
  }

  /** The number of a name if it is known here already. */
  known(name: string): number | undefined {
    return this.#ids.get(name);
  }

  /** The numbers of the names, in order; a name never seen before is given one, outside any transaction of the caller's. */
  async ids(names: readonly string[]): Promise<number[]> {
    await this.#learn(names);
    const missing = this.#unknown(names);
    if (missing.length > 0) {
      await this.#room.add(this.#db, missing);
      await this.#learn(missing);
    }
    return names.map((name) => this.#ids.get(name) as number);
  }

  /** The same inside a transaction, remembering nothing: what is given a number there may be rolled back. */
  async idWithin(tx: Executor, name: string): Promise<number> {
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    const [found] = await this.#room.find(tx, [name]);
    if (found !== undefined) return found.id;
    await this.#room.add(tx, [name]);
    const [added] = await this.#room.find(tx, [name]);
    // A transaction with an old snapshot does not see what another one has just added.
    return added?.id ?? this.id(name);
  }

  async id(name: string): Promise<number> {
    return this.#ids.get(name) ?? ((await this.ids([name]))[0] as number);
  }

  /** The number of a name, or undefined when nothing has used it yet. */
  async find(name: string): Promise<number | undefined> {
    await this.#learn([name]);
    return this.#ids.get(name);
  }

  /** The number of a name that must be there. Throws `QUEUE_NOT_FOUND` or `TASK_NOT_FOUND`, and says which name is near. */
  async existing(name: string): Promise<number> {
    const id = await this.find(name);
    if (id !== undefined) return id;
    const { what } = this.#room;
    const near = didYouMean(name, await this.#room.all(this.#db));
    const code = what === "queue" ? "QUEUE_NOT_FOUND" : "TASK_NOT_FOUND";
    throw new MillraceError(code, `There is no ${what} "${name}".${near}`);
  }

  async #learn(names: readonly string[]): Promise<void> {
    const missing = this.#unknown(names);
    if (missing.length === 0) return;
    for (const { id, name } of await this.#room.find(this.#db, missing)) this.#remember(id, name);
  }

  /** The name of a number, asked from the database when it is new here. */
  async nameOf(id: number): Promise<string> {
    const known = this.#namesById.get(id);
    if (known !== undefined) return known;
    const name = await this.#room.nameOf(this.#db, id);
    this.#remember(id, name);
    return name;
  }

  #remember(id: number, name: string): void {
    this.#ids.set(name, id);
    this.#namesById.set(id, name);
  }

  #unknown(names: readonly string[]): string[] {
    return [...new Set(names)].filter((name) => !this.#ids.has(name));
  }
}
