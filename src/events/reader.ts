/** Reads what has happened since a place, look by look, and moves the place on. */
import type { Database } from "../db/database.ts";
import { belated, prompt, readArrivals, readArrivalsMark } from "./arrivals-store.ts";
import {
  type Writers,
  pageMax,
  readAttempts,
  readAudit,
  readBounds,
  readEnded,
  readEnds,
  readIds,
  readIngestDecisions,
  readLive,
  readOperations,
  readPolicyDecisions,
  readSettled,
  readShortestKept,
  readWorkers,
  readWriters,
} from "./events-store.ts";
import { IdLine } from "./id-line.ts";
import { type Place, nowhere } from "./place.ts";
import {
  type Heard,
  arrival,
  arrivals,
  attempt,
  audited,
  ended,
  operation,
  refused,
  settled,
  started,
  throttled,
} from "./shape.ts";
import { type Numbered, type Source, sources } from "./types.ts";

/** Numbers below the highest that are asked for again at the beginning: of transactions that were under way then. */
const beginSpan = 10_000;
/** How often to look for jobs that came late, in microseconds. */
const belatedEveryUs = 10_000_000;

export class Reader {
  readonly place: Place;
  readonly #db: Database;
  readonly #keptMs: number;
  /** What a look has read that failed later on: the place is past it. */
  #unheard: Heard[] = [];

  /** `keptMs`: how long history is kept at least. */
  constructor(db: Database, keptMs: number, place: Place = nowhere()) {
    this.#db = db;
    this.#keptMs = keptMs;
    this.place = place;
  }

  /** Follows exactly these from now on, or from where the place says. */
  async follow(wanted: ReadonlySet<Source>): Promise<void> {
    const { lines } = this.place;
    for (const source of lines.keys()) if (!wanted.has(source)) lines.delete(source);
    if (!wanted.has("workers")) this.place.live = [];
    if (!wanted.has("jobs")) this.place.arrivals = undefined;
    const missing = sources.filter((source) => wanted.has(source) && !this.#follows(source));
    if (missing.length === 0) return;
    const writers = await readWriters(this.#db);
    const ends = await readEnds(
      this.#db,
      missing.filter((source) => source !== "jobs"),
    );
    for (const source of missing) {
      if (source === "jobs") {
        const mark = await readArrivalsMark(this.#db, writers);
        this.place.arrivals = { prompt: mark, belated: mark };
      } else lines.set(source, await this.#begin(source, ends.get(source) ?? 0));
    }
    if (missing.includes("workers")) this.place.live = await readLive(this.#db);
    this.place.at ||= writers.at;
  }

  /** Why events between the place and now may be missing; undefined: none are. Of another database, it begins anew. */
  async missed(): Promise<"HISTORY_PRUNED" | "OTHER_DATABASE" | undefined> {
    const { lines, at } = this.place;
    const bounds = await readBounds(this.#db);
    const { at: now } = await readWriters(this.#db);
    const foreign = [...lines].some(([source, { high }]) => high > (bounds.get(source)?.last ?? 0));
    if (foreign || at > now + 60_000_000) {
      lines.clear();
      this.place.live = [];
      this.place.arrivals = undefined;
      this.place.at = 0;
      return "OTHER_DATABASE";
    }
    const pruned = [...lines].some(([source, { high }]) => {
      const { first = null, last = 0 } = bounds.get(source) ?? {};
      return first === null ? last > high : first > high + 1 && high > 0;
    });
    const keptMs = Math.min(this.#keptMs, (await readShortestKept(this.#db)) ?? Number.POSITIVE_INFINITY);
    return pruned || now - at > keptMs * 1_000 ? "HISTORY_PRUNED" : undefined;
  }

  /** What has happened since the last look, in order per table. `more`: there is more than one look takes. */
  async look(wantedJobs: readonly string[]): Promise<{ heard: Heard[]; more: boolean }> {
    const { lines } = this.place;
    // Before anything is read: see `readWriters`.
    const writers = await readWriters(this.#db);
    const ends = await readEnds(this.#db, [...lines.keys()]);
    const heard = this.#unheard;
    let more = false;
    for (const source of sources) {
      if (source === "jobs") {
        heard.push(...(await this.#arrivals(writers, wantedJobs)));
        continue;
      }
      const line = lines.get(source);
      if (line === undefined || (line.gaps.length === 0 && (ends.get(source) ?? 0) <= line.high)) continue;
      line.beforeRead(writers.of.get(source) ?? new Set());
      const { high } = line;
      const found = await this.#read(source, line, wantedJobs);
      line.read(found.ids);
      more ||= found.ids.filter((id) => id > high).length >= pageMax;
      heard.push(...found.heard);
    }
    if (this.place.live.length > 0) heard.push(...(await this.#ended()));
    this.place.at = writers.at;
    this.#unheard = [];
    return { heard, more };
  }

  #follows(source: Source): boolean {
    return source === "jobs" ? this.place.arrivals !== undefined : this.place.lines.has(source);
  }

  async #begin(source: Numbered, high: number): Promise<IdLine> {
    const from = Math.max(high - beginSpan, 0) + 1;
    if (from > high) return new IdLine(high);
    // Everything below is a gap until it is seen; nobody hears of what is there already.
    const line = new IdLine(high, [[from, high]]);
    line.read(await readIds(this.#db, source, from, high));
    return line;
  }

  async #ended(): Promise<Heard[]> {
    const gone = await readEnded(this.#db, this.place.live);
    const ids = new Set(gone.map(({ id }) => id));
    this.place.live = this.place.live.filter((id) => !ids.has(id));
    return gone.map((row) => ({ event: ended(row) }));
  }

  async #arrivals(writers: Writers, wanted: readonly string[]): Promise<Heard[]> {
    const marks = this.place.arrivals;
    if (marks === undefined) return [];
    const came = await readArrivals(this.#db, marks.prompt, writers, wanted, prompt);
    const late =
      writers.at - marks.belated.at < belatedEveryUs
        ? undefined
        : await readArrivals(this.#db, marks.belated, writers, wanted, belated);
    this.place.arrivals = { prompt: came.mark, belated: late?.mark ?? marks.belated };
    return [late, came].flatMap((read) => {
      if (read === undefined) return [];
      const together = read.groups.length > 0;
      return [
        ...read.groups.map((row) => ({ event: arrivals(row) })),
        ...read.singles.map((row) => ({ event: arrival(row), ...(together ? { apart: true as const } : {}) })),
      ];
    });
  }

  async #read(
    source: Numbered,
    line: IdLine,
    wanted: readonly string[],
  ): Promise<{ ids: readonly number[]; heard: Heard[] }> {
    const each = <Row extends { id: number }>(rows: Row[], make: (row: Row) => Heard["event"]) => ({
      ids: rows.map(({ id }) => id),
      heard: rows.map((row) => ({ event: make(row) })),
    });
    switch (source) {
      case "settled": {
        const rows = await readSettled(this.#db, line, wanted);
        return { ids: rows.map(({ id }) => id), heard: rows.flatMap(settled) };
      }
      case "attempts":
        return each(await readAttempts(this.#db, line), attempt);
      case "operations":
        return each(await readOperations(this.#db, line), operation);
      case "audit":
        return each(await readAudit(this.#db, line), audited);
      case "policy_decisions":
        return each(await readPolicyDecisions(this.#db, line), throttled);
      case "ingest_decisions":
        return each(await readIngestDecisions(this.#db, line), refused);
      case "workers": {
        const rows = await readWorkers(this.#db, line);
        this.place.live = [...new Set([...this.place.live, ...rows.map(({ id }) => id)])];
        return each(rows, started);
      }
    }
  }
}
