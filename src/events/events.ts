/** The events of a Millrace: listeners by type, and streams. One follower feeds them all. */
import { MillraceError } from "../core/errors.ts";
import { didYouMean, refuseUnknown, show } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import { type EventFilter, readFilter, sourcesOf } from "./filter.ts";
import { type Batch, Follower, type FollowerSettings, type Listener } from "./follower.ts";
import { EventStream } from "./stream.ts";
import { type EventOf, type EventType, type MillraceEvent, type Source, eventTypes, isEventType } from "./types.ts";

/** Hears events of one type. What it throws, or its promise, is logged. */
export type EventListener<Type extends EventType> = (event: EventOf<Type>) => unknown;

/** What `on` and `once` return. */
export interface Listening {
  /** Resolves when everything that is committed from then on will be told. */
  readonly ready: Promise<void>;
  off(): void;
}

export interface StreamOptions extends EventFilter {
  /** `place` of a stream of the same filter, here or elsewhere, to go on from. Default: from now on. */
  after?: string;
}

interface Entry {
  readonly type: EventType;
  readonly listener: (event: MillraceEvent) => unknown;
  readonly once: boolean;
}

const streamNames: ReadonlySet<string> = new Set(["queue", "type", "job", "after"]);

export class Events {
  readonly #db: Database;
  readonly #settings: FollowerSettings;
  readonly #follower: Follower;
  readonly #streams = new Set<EventStream>();
  #entries: readonly Entry[] = [];
  readonly #ear: Listener;

  constructor(db: Database, settings: FollowerSettings) {
    this.#db = db;
    this.#settings = settings;
    this.#follower = new Follower(db, settings);
    const wants = (): ReadonlySet<Source> => sourcesOf(this.#entries.map(({ type }) => type));
    const hear = (batch: Batch): void => this.#hear(batch);
    this.#ear = {
      get wants() {
        return wants();
      },
      hear,
    };
  }

  /** Throws `OPTION_INVALID`. */
  on<Type extends EventType>(type: Type, listener: EventListener<Type>, once = false): Listening {
    if (!isEventType(type) || eventTypes[type].from === "stream")
      throw new MillraceError(
        "OPTION_INVALID",
        `There is no event of type ${show(type)} to listen to.${didYouMean(String(type), Object.keys(eventTypes))}`,
      );
    if (typeof listener !== "function")
      throw new MillraceError("OPTION_INVALID", `A listener must be a function, not ${show(listener)}.`);
    const entry: Entry = { type, listener: listener as unknown as Entry["listener"], once };
    this.#entries = [...this.#entries, entry];
    return {
      ready: this.#follower.join(this.#ear).then(() => undefined),
      off: () => this.#remove((other) => other === entry),
    };
  }

  off<Type extends EventType>(type: Type, listener: EventListener<Type>): void {
    this.#remove((entry) => entry.type === type && (entry.listener as unknown) === listener);
  }

  stream(options: StreamOptions = {}): EventStream {
    refuseUnknown("events", options, streamNames);
    const { after, ...filter } = options;
    const stream = new EventStream({
      db: this.#db,
      follower: this.#follower,
      keptMs: this.#settings.keptMs,
      filter: readFilter(filter),
      after,
      onClose: (closed) => this.#streams.delete(closed),
    });
    this.#streams.add(stream);
    return stream;
  }

  /** Ends every stream; nobody hears anything more. */
  async close(): Promise<void> {
    this.#entries = [];
    for (const stream of this.#streams) stream.close();
    await this.#follower.close();
  }

  #hear({ heard }: Batch): void {
    for (const { event, apart } of heard) {
      if (apart) continue;
      for (const entry of this.#entries) {
        if (entry.type !== event.type) continue;
        if (entry.once) this.#remove((other) => other === entry);
        this.#tell(entry, event);
      }
    }
  }

  #tell({ listener, type }: Entry, event: MillraceEvent): void {
    const complain = (error: unknown): void =>
      this.#settings.log.error({ err: error, event: type, id: event.id }, "a listener of events has thrown");
    try {
      const answer = listener(event);
      if (answer instanceof Promise) answer.catch(complain);
    } catch (error) {
      complain(error);
    }
  }

  #remove(which: (entry: Entry) => boolean): void {
    this.#entries = this.#entries.filter((entry) => !which(entry));
    if (this.#entries.length === 0) this.#follower.leave(this.#ear);
  }
}
