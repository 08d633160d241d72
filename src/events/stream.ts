/** Events as an async iterator, for one reader: from now on, or from a place that was reached before. */
import { MillraceError } from "../core/errors.ts";
import type { Database } from "../db/database.ts";
import { type Filter, matches } from "./filter.ts";
import type { Batch, Follower, Listener } from "./follower.ts";
import { readPlace, writePlace } from "./place.ts";
import { Reader } from "./reader.ts";
import type { Heard } from "./shape.ts";
import type { MillraceEvent, Source } from "./types.ts";

/** Events that wait for a slow reader at most. */
const bufferMax = 10_000;

interface Entry {
  readonly event: MillraceEvent;
  /** The last of its look: everything up to the place has been handed out with it. */
  place?: string;
}

interface Waiting {
  readonly resolve: (result: IteratorResult<MillraceEvent, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

export interface StreamSetup {
  readonly db: Database;
  readonly follower: Follower;
  readonly keptMs: number;
  readonly filter: Filter;
  /** The place to go on from. */
  readonly after: string | undefined;
  readonly onClose: (stream: EventStream) => void;
}

export class EventStream implements AsyncIterableIterator<MillraceEvent, undefined>, Listener {
  /** Resolves when everything that is committed from then on will be told. */
  readonly ready: Promise<void>;
  readonly wants: ReadonlySet<Source>;
  readonly job: string | undefined;
  readonly #setup: StreamSetup;
  #place: string | undefined;
  #buffer: Entry[] = [];
  #head = 0;
  #waiting: Waiting[] = [];
  #drained: () => void = () => undefined;
  /** Batches that come while older ones are being read. */
  #held: Batch[] | undefined;
  #heldCount = 0;
  #over = false;
  #failure: { error: unknown } | undefined;

  /** Throws `OPTION_INVALID` for a place that is none. */
  constructor(setup: StreamSetup) {
    this.#setup = setup;
    this.wants = setup.filter.sources;
    this.job = setup.filter.job;
    this.#place = setup.after;
    if (setup.after === undefined)
      this.ready = setup.follower.join(this).then((place) => {
        this.#place ??= place;
      });
    else {
      this.#held = [];
      const reader = new Reader(setup.db, setup.keptMs, readPlace(setup.after));
      // Not until it has caught up: for that, what it finds has to be read.
      this.ready = this.#begin(reader).catch((error: unknown) => this.#fail(error));
      void this.ready.then(() => this.#catchUp(reader)).catch((error: unknown) => this.#fail(error));
    }
  }

  /** Nothing more is heard; what was heard before can still be read. */
  get closed(): boolean {
    return this.#over;
  }

  /** Where to go on from, with everything that was handed out before it; undefined until `ready`. */
  get place(): string | undefined {
    return this.#place;
  }

  /** The next event. Throws `EVENTS_TOO_SLOW` when more wait than are kept. */
  next(): Promise<IteratorResult<MillraceEvent, undefined>> {
    const entry = this.#buffer[this.#head];
    if (entry !== undefined) {
      this.#head += 1;
      if (this.#head === this.#buffer.length) {
        this.#buffer = [];
        this.#head = 0;
        this.#drained();
      }
      this.#place = entry.place ?? this.#place;
      return Promise.resolve({ value: entry.event, done: false });
    }
    if (this.#failure) {
      const { error } = this.#failure;
      this.#failure = undefined;
      return Promise.reject(error as Error);
    }
    if (this.#over) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<MillraceEvent, undefined>> {
    this.#buffer = [];
    this.#head = 0;
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }

  /** What has been heard can still be read; then it is over. */
  close(): void {
    if (this.#over) return;
    this.#over = true;
    this.#setup.follower.leave(this);
    this.#setup.onClose(this);
    this.#drained();
    for (const { resolve } of this.#waiting.splice(0)) resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  hear(batch: Batch): void {
    if (this.#over) return;
    if (this.#held === undefined) return this.#take(batch.heard, batch.place);
    const heard = batch.heard.filter((one) => matches(this.#setup.filter, one));
    this.#heldCount += heard.length;
    if (this.#heldCount > bufferMax) this.#tooSlow();
    else this.#held.push({ heard, place: batch.place });
  }

  async #begin(reader: Reader): Promise<void> {
    const since = new Date(reader.place.at / 1_000);
    const why = await reader.missed();
    if (why !== undefined)
      this.#give({ type: "stream.missed", id: `missed-${since.getTime()}`, at: new Date(), since, reason: why });
    await reader.follow(this.wants);
  }

  /** Reads what lies between the place and now, then goes on with everybody else. */
  async #catchUp(reader: Reader): Promise<void> {
    const { filter, follower } = this.#setup;
    while (await this.#lookBack(reader)) await this.#room();
    if (this.#over) return;
    // From here on everybody else's batches are held. One more round: whatever they leave out was there when it began.
    await follower.join(this);
    const told = new Set<string>();
    while (await this.#lookBack(reader, told)) await this.#room();
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const { heard, place } of held) {
      const news = heard.filter(({ event }) => !told.has(event.id));
      this.#take(news, place, filter);
    }
  }

  /** True when there is more. */
  async #lookBack(reader: Reader, told?: Set<string>): Promise<boolean> {
    if (this.#over) return false;
    const { heard, more } = await reader.look(this.job === undefined ? [] : [this.job]);
    for (const { event } of heard) told?.add(event.id);
    this.#take(heard, writePlace(reader.place));
    return more;
  }

  /** Whoever reads back waits for its reader. */
  async #room(): Promise<void> {
    if (this.#over || this.#buffer.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  #take(heard: readonly Heard[], place: string, filter: Filter = this.#setup.filter): void {
    if (this.#over) return;
    for (const one of heard) if (matches(filter, one)) this.#give(one.event);
    const last = this.#buffer.at(-1);
    if (last === undefined) this.#place = place;
    else last.place = place;
    if (this.#buffer.length - this.#head > bufferMax) this.#tooSlow();
  }

  #give(event: MillraceEvent): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#buffer.push({ event });
    else waiting.resolve({ value: event, done: false });
  }

  #tooSlow(): void {
    this.#buffer = [];
    this.#head = 0;
    const message = `More than ${bufferMax} events wait to be read; go on from the place that was reached.`;
    this.#fail(new MillraceError("EVENTS_TOO_SLOW", message));
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#failure = { error };
    else waiting.reject(error);
    this.close();
  }
}
