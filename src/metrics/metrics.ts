/** The metrics of one process: what it measures itself, and what it reads from the database for the whole system. */
import { Counter, Gauge, Histogram, type Metric, Registry, collectDefaultMetrics } from "prom-client";
import type { Log } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import { type Family, families } from "./families.ts";
import { Shared } from "./shared.ts";
import { type Snapshot, Snapshots } from "./snapshot.ts";

/** Values of `queue`, of `schedule`, and sets of labels of a request that are told apart; what comes later is `_other`. */
const seriesMax = 200;
/** Nobody scrapes more often in earnest. */
const textMs = 1_000;

export interface MetricsOptions {
  /** Before the name of every metric that is Millrace's own. */
  readonly prefix: string;
  readonly version: string;
  /** How full the disk with the data is, 0 to 1. */
  readonly diskUsed: () => Promise<number>;
  readonly log: Log;
  /** Default: `seriesMax`. */
  readonly cap?: number;
  /** How long a scrape waits for the database. Default: 1 000 ms. */
  readonly budgetMs?: number;
  /** Milliseconds that only go forward. Default: `performance.now`. */
  readonly clock?: () => number;
}

export interface RequestLabels {
  readonly method: string;
  /** The template, such as `/jobs/:id`. */
  readonly route: string;
  readonly route_class: "api" | "ops" | "stream" | "probe" | "files";
  readonly code: number;
}

const methods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
/** The thresholds of the runbooks are ends of buckets: 0.1, 0.5, 0.6 and 1 s. */
const httpBucketsSeconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.6, 1, 2.5, 5, 10];

export class Metrics {
  readonly #snapshots: Snapshots;
  readonly #options: MetricsOptions;
  readonly #cap: number;
  readonly #own = new Registry();
  readonly #http: Histogram<keyof RequestLabels>;
  readonly #up: Gauge;
  readonly #clock: Gauge;
  readonly #took: Gauge;
  readonly #errors: Counter<"source">;
  readonly #disk: Gauge;
  readonly #dropped: Counter<"label">;
  readonly #requests = new Set<string>();
  readonly #droppedSoFar = new Map<string, number>();
  readonly #text: Shared<string>;

  constructor(db: Database, options: MetricsOptions) {
    const { prefix, version, cap = seriesMax, budgetMs = 1_000 } = options;
    this.#options = options;
    this.#cap = cap;
    this.#snapshots = new Snapshots(db, cap, budgetMs);
    this.#text = new Shared(() => this.#write(), textMs, options.clock);
    const registers = [this.#own];
    const gauge = (name: string, help: string): Gauge => new Gauge({ name: `${prefix}${name}`, help, registers });
    this.#http = new Histogram({
      name: "http_request_duration_seconds",
      help: "Requests of the API, from their headers to those of the answer.",
      labelNames: ["method", "route", "route_class", "code"],
      buckets: httpBucketsSeconds,
      registers,
    });
    new Gauge({
      name: `${prefix}build_info`,
      help: "The version of this process; always 1.",
      labelNames: ["version", "node"],
      registers,
    }).set({ version, node: process.versions.node }, 1);
    this.#up = gauge("database_up", "Whether this process could read the database for this scrape.");
    this.#clock = gauge("database_clock_skew_seconds", "How far the database's clock is ahead of this process's.");
    this.#took = gauge("collect_duration_seconds", "How long reading the database for metrics took the last time.");
    this.#disk = gauge("disk_used_ratio", "How full the disk with the data is.");
    this.#errors = new Counter({
      name: `${prefix}collect_errors_total`,
      help: "Scrapes that are missing something, by what could not be read.",
      labelNames: ["source"],
      registers,
    });
    for (const source of ["database", "disk"]) this.#errors.inc({ source }, 0);
    this.#dropped = new Counter({
      name: `${prefix}series_dropped_total`,
      help: "Values of labels that were counted as _other, for there were too many.",
      labelNames: ["label"],
      registers,
    });
    for (const label of ["queue", "schedule", "route"]) this.#dropped.inc({ label }, 0);
  }

  /** One answered request. */
  request(labels: RequestLabels, seconds: number): void {
    const known = methods.has(labels.method) ? labels : { ...labels, method: "_other" };
    const key = `${known.method} ${known.code} ${known.route}`;
    if (!this.#requests.has(key)) {
      if (this.#requests.size >= this.#cap) {
        this.#dropped.inc({ label: "route" });
        return this.#http.observe({ ...known, method: "_other", route: "_other" }, seconds);
      }
      this.#requests.add(key);
    }
    this.#http.observe({ ...known }, seconds);
  }

  /**
   * All metrics, in the text format of Prometheus. What cannot be read is missing, counted and logged; it never fails for that. Scrapes
   * within a second get the same text, and while the next is written: however many come, they cost one a second, and get what was
   * read two seconds before at most.
   */
  text(): Promise<string> {
    return this.#text.read();
  }

  async #write(): Promise<string> {
    const [snapshot] = await Promise.all([this.#look(), this.#measureDisk()]);
    const parts = [processMetrics().metrics(), this.#own.metrics()];
    if (snapshot !== undefined) parts.push(this.#ofSystem(snapshot).metrics());
    return (await Promise.all(parts)).join("\n");
  }

  async #look(): Promise<Snapshot | undefined> {
    try {
      const snapshot = await this.#snapshots.take();
      this.#up.set(1);
      this.#clock.set(snapshot.clockAheadSeconds);
      this.#took.set(snapshot.tookMs / 1_000);
      for (const { queue, queues } of snapshot.queues) if (queue === "_other") this.#drop("queue", queues);
      for (const { schedule, schedules } of snapshot.schedules)
        if (schedule === "_other") this.#drop("schedule", schedules);
      return snapshot;
    } catch (error) {
      this.#up.set(0);
      this.#clock.remove();
      this.#took.remove();
      this.#miss("database", error);
      return undefined;
    }
  }

  async #measureDisk(): Promise<void> {
    try {
      this.#disk.set(await this.#options.diskUsed());
    } catch (error) {
      this.#disk.remove();
      this.#miss("disk", error);
    }
  }

  #miss(source: string, error: unknown): void {
    this.#errors.inc({ source });
    this.#options.log.debug({ err: error, source }, "metrics are missing from this scrape");
  }

  #drop(label: string, now: number): void {
    const before = this.#droppedSoFar.get(label) ?? 0;
    if (now <= before) return;
    this.#dropped.inc({ label }, now - before);
    this.#droppedSoFar.set(label, now);
  }

  #ofSystem(snapshot: Snapshot): Registry {
    const registry = new Registry();
    for (const family of families) registry.registerMetric(read(family, this.#options.prefix, snapshot));
    return registry;
  }
}

/**
 * Totals that are read as they stand: a counter of prom-client only counts, and its histogram only observes. The registry asks a metric
 * for its name and for `get`.
 */
function read({ name: ownName, type, help, samples }: Family, prefix: string, snapshot: Snapshot): Metric {
  const name = `${prefix}${ownName}`;
  const values = samples(snapshot).map(({ labels, value, suffix = "" }) => ({
    metricName: `${name}${suffix}`,
    labels,
    value,
  }));
  return { name, get: async () => ({ name, type, help, values, aggregator: "first" }) } as unknown as Metric;
}

let ofProcess: Registry | undefined;

/** Those of Node and of the operating system, once per process: they keep a timer and an observer. */
function processMetrics(): Registry {
  if (ofProcess === undefined) {
    ofProcess = new Registry();
    collectDefaultMetrics({ register: ofProcess });
    // Gauges that are named like counters, and say what the others of their kind say.
    for (const what of ["resources", "handles", "requests"])
      ofProcess.removeSingleMetric(`nodejs_active_${what}_total`);
  }
  return ofProcess;
}
