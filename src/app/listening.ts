/** Hearing what happens to jobs, queues, workers and schedules, whoever does it and wherever. `Millrace` has these verbs. */
import type { Database } from "../db/database.ts";
import { type EventListener, Events, type Listening, type StreamOptions } from "../events/events.ts";
import type { EventStream } from "../events/stream.ts";
import type { EventType } from "../events/types.ts";
import type { App } from "./app.ts";
import type { Surroundings } from "./millrace.ts";
import { Producer } from "./producer.ts";

/** From a commit to its event, at most, while there is little to tell. */
const lookEveryMs = 250;

export abstract class Listener extends Producer {
  protected readonly listening: Events;

  constructor(app: App, db: Database, surroundings: Surroundings) {
    super(app, db, surroundings);
    const { archiveAfterMs, pruneAfterMs, keepFailedMs } = surroundings.maintenance;
    const keptMs = Math.min(archiveAfterMs + pruneAfterMs, keepFailedMs);
    this.listening = new Events(db, { log: surroundings.log, keptMs, everyMs: lookEveryMs });
  }

  /**
   * Calls `listener` for every event of this type, of any process on this database. What it throws is logged and stops nobody else.
   * Nothing is read while nobody listens. Of more than a thousand jobs at once, `jobs.completed` and `jobs.enqueued` tell.
   */
  on<Type extends EventType>(type: Type, listener: EventListener<Type>): Listening {
    this.mustBeOpen();
    return this.listening.on(type, listener);
  }

  /** The same for the next event of this type only. */
  once<Type extends EventType>(type: Type, listener: EventListener<Type>): Listening {
    this.mustBeOpen();
    return this.listening.on(type, listener, true);
  }

  off<Type extends EventType>(type: Type, listener: EventListener<Type>): void {
    this.listening.off(type, listener);
  }

  /** Events one after the other, for `for await`; it ends when this Millrace is closed, and with `break`. */
  events(options: StreamOptions = {}): EventStream {
    this.mustBeOpen();
    return this.listening.stream(options);
  }
}
