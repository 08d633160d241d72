/**
 * Schedules that an app's code defines, and what the database makes of them. The rule: of the versions of the app that are alive, the one
 * that came last decides about the schedules it defines; what no living version defines is retired. What an operator changed or paused
 * stays as it is. A version that came before never writes over a newer one, so two side by side do not take turns. Processes that fire no
 * schedules keep theirs from being retired, and decide nothing.
 */
import { createHash } from "node:crypto";
import type { Database, Executor } from "../db/database.ts";
import type { Schedule, Spec } from "./definition.ts";
import { type ScheduleDesk, canonical, checkInput, edited, editsOf, isRetimed, numbersOf, placeOf } from "./desk.ts";
import {
  type NewSchedule,
  type SavedSchedule,
  type ScheduleRow,
  insertSchedules,
  lockByName,
  readClock,
  saveSchedules,
  tellSchedulers,
} from "./schedules-store.ts";
import {
  type Version,
  aliveMs,
  beatVersions,
  forgetAllVersions,
  forgetVersions,
  livingVersions,
  lockVersions,
  orphanedSchedules,
} from "./versions-store.ts";

/** Schedules defined together: an app's, or those that Millrace brings along. */
export interface DefinedSet {
  readonly source: "code" | "built_in";
  readonly schedules: readonly Schedule[];
}

/** What a process saw last, for the next time it looks. Times in ms since 1970, by the database's clock. */
export interface Standing {
  readonly living: string;
  readonly atMs: number;
  /** Until then it retires nobody and takes nothing over. */
  readonly patientUntilMs: number;
}

/** Nothing was heard for so long: by nobody, for the database was away, or its clock has jumped. */
const silenceMs = 45_000;

function versionOf({ source, schedules }: DefinedSet, decides: boolean): Version {
  const all = schedules
    .map(({ name, spec }) => [name, spec])
    .toSorted(([a], [b]) => ((a as string) < (b as string) ? -1 : 1));
  return {
    fingerprint: createHash("sha256")
      .update(canonical([decides ? source : "kept", all]))
      .digest("hex")
      .slice(0, 32),
    names: schedules.map(({ name }) => name),
    decides,
  };
}

function versionsOf(sets: readonly DefinedSet[], decides: boolean): Version[] {
  return sets.filter(({ schedules }) => schedules.length > 0).map((set) => versionOf(set, decides));
}

/** Says that code with these definitions lives, so that nobody retires them, and changes nothing else. */
export async function keepAlive(db: Database, sets: readonly DefinedSet[]): Promise<void> {
  await beatVersions(db, versionsOf(sets, false));
}

/**
 * Says that these definitions live, and brings the database to what the living versions say.
 * `alone`: no other process can be alive. `before`: what it returned last time; when nothing has changed since, nothing is written. After a
 * silence of its own it waits for a minute: others were silent too, and must be able to say that they live.
 */
export async function reconcile(
  desk: ScheduleDesk,
  sets: readonly DefinedSet[],
  { alone = false, before }: { alone?: boolean; before?: Standing } = {},
): Promise<Standing> {
  const defined = sets.filter(({ schedules }) => schedules.length > 0);
  const versions = versionsOf(defined, true);
  let patientUntilMs = Number.NEGATIVE_INFINITY;
  if (before !== undefined) {
    await beatVersions(desk.db, versions);
    const atMs = (await readClock(desk.db)).getTime();
    const silentMs = atMs - before.atMs;
    patientUntilMs = silentMs < 0 || silentMs > silenceMs ? atMs + aliveMs : before.patientUntilMs;
    const living = fingerprintsOf(await livingVersions(desk.db));
    if (living === before.living || atMs < patientUntilMs) return { living: before.living, atMs, patientUntilMs };
  }
  const all = defined.flatMap(({ schedules }) => schedules);
  for (const { spec, task } of all) await checkInput(task ?? desk.tasks.find((one) => one.name === spec.task), spec);
  // Learnt now, they need no look-up in the transaction.
  await desk.names.tasks.ids(all.map(({ spec }) => spec.task));
  await desk.names.queues.ids(all.map(({ spec }) => spec.queue));
  const told: string[] = [];
  const standing = await desk.db.transaction(async (tx) => {
    await lockVersions(tx, desk.db.schema);
    await (alone ? forgetAllVersions(tx) : forgetVersions(tx));
    await beatVersions(tx, versions);
    const alive = await livingVersions(tx);
    const orphans = await orphanedSchedules(
      tx,
      alive.flatMap((version) => version.names),
    );
    // All rows at once and before the first change: that is noted in the audit, and whoever has written there must not wait for a row
    // whose holder is about to write there too.
    await lockByName(tx, [...all.map(({ name }) => name), ...orphans]);
    for (const [i, set] of defined.entries()) {
      const newer = alive.slice(
        0,
        alive.findIndex(({ fingerprint }) => fingerprint === versions[i]?.fingerprint),
      );
      const ours = set.schedules.filter(({ name }) => !newer.some(({ names }) => names.includes(name)));
      told.push(...(await define(tx, desk, { ...set, schedules: ours })));
    }
    told.push(...(await retire(tx, orphans)));
    if (told.length > 0) await tellSchedulers(tx, desk.channel);
    return { living: fingerprintsOf(alive), atMs: (await readClock(tx)).getTime(), patientUntilMs };
  });
  for (const sentence of told) desk.log.info({}, sentence);
  return standing;
}

function fingerprintsOf(versions: readonly Version[]): string {
  return versions.map(({ fingerprint }) => fingerprint).join(" ");
}

/** Makes what is new, and changes what the code says otherwise than before. Returns what was done, a sentence each. */
async function define(tx: Executor, desk: ScheduleDesk, { source, schedules }: DefinedSet): Promise<string[]> {
  const now = await readClock(tx);
  const found = await lockByName(
    tx,
    schedules.map(({ name }) => name),
  );
  const byName = new Map(found.map((row) => [row.name, row]));
  const anchor = new Date(Math.floor(now.getTime() / 1_000) * 1_000);
  const fresh = schedules.filter(({ name }) => !byName.has(name));
  const made: NewSchedule[] = [];
  for (const { name, spec, paused } of fresh) {
    const place = placeOf(desk, spec, { anchor, lastAt: null, now });
    made.push({ name, source, spec, defined: spec, anchor, paused, ...(await numbersOf(desk, tx, spec)), ...place });
  }
  await insertSchedules(tx, made, null);
  const changed: SavedSchedule[] = [];
  for (const { name, spec } of schedules) {
    const row = byName.get(name);
    if (row === undefined || (row.retiredAt === null && canonical(row.defined) === canonical(spec))) continue;
    changed.push(await redefined(tx, desk, row, source, spec));
  }
  await saveSchedules(tx, changed, { action: "schedule.defined", by: null });
  return [
    ...fresh.map(({ name }) => `schedule "${name}" is new`),
    ...changed.map(({ id }) => `schedule "${found.find((row) => row.id === id)?.name}" is defined anew`),
  ];
}

async function redefined(
  tx: Executor,
  desk: ScheduleDesk,
  row: ScheduleRow,
  source: DefinedSet["source"],
  defined: Spec,
): Promise<SavedSchedule> {
  // An operator's schedule whose name the code takes: what the operator said is an edit now.
  const edits = row.defined === null ? editsOf(defined, row.spec) : row.edits;
  const spec = edited(defined, edits);
  const saved = { ...row, source, spec, defined, edits, retiredAt: null, ...(await numbersOf(desk, tx, spec)) };
  if (row.pausedAt !== null || (row.retiredAt === null && !isRetimed(row.spec, spec))) return saved;
  return { ...saved, ...placeOf(desk, spec, row) };
}

/** Ends what no living version defines. */
async function retire(tx: Executor, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  const rows = await lockByName(tx, names);
  await saveSchedules(
    tx,
    rows.map((row) => ({ ...row, retiredAt: row.now, nextAt: null, dueAt: null })),
    { action: "schedule.retired", by: null },
  );
  return rows.map(({ name }) => `schedule "${name}" is retired: no running app defines it`);
}
