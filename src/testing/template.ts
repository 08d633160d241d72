/**
 * A PGlite with virtual time and Millrace's tables. Making a cluster takes seconds, unpacking one less than a second: the first
 * process that needs one leaves it in the folder for temporary files, for every later one of this user with the same versions.
 */
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { openEmbedded } from "../db/embedded.ts";
import { migrate, migrations } from "../db/migrate.ts";
import { clockDefinition, installClock, wholeDueTimes } from "./clock-store.ts";
import { lookDefinition } from "./due-store.ts";
import { saveState } from "./state-store.ts";

export const schema = "millrace";

/** A new one, in memory, whose tables are empty. */
export async function openTemplate(): Promise<PGlite> {
  const file = templateFile();
  const saved = file === undefined ? undefined : read(file);
  if (saved) return PGlite.create({ loadDataDir: new Blob([saved], { type: "application/x-gzip" }) });
  const pglite = await PGlite.create();
  await installClock(pglite);
  await migrate(await openEmbedded({ schema, pglite }));
  await wholeDueTimes(pglite);
  await pglite.exec(lookDefinition);
  await saveState(pglite, "empty");
  if (file !== undefined) {
    const dump = await pglite.dumpDataDir("gzip");
    const aside = `${file}.${process.pid}`;
    writeFileSync(aside, Buffer.from(await dump.arrayBuffer()), { mode: 0o600 });
    renameSync(aside, file); // whoever reads it meanwhile has all of it or none
  }
  return pglite;
}

/** Undefined where a file of ours could be somebody else's. */
function templateFile(): string | undefined {
  const { uid } = userInfo();
  const folder = join(tmpdir(), `millrace-testing-${uid}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const found = lstatSync(folder);
  const isOurs = found.isDirectory() && (uid < 0 || (found.uid === uid && (found.mode & 0o077) === 0));
  return isOurs ? join(folder, `${madeOf()}.tar.gz`) : undefined;
}

function read(file: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return new Uint8Array(readFileSync(file));
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Names everything the template depends on. */
function madeOf(): string {
  const main = createRequire(import.meta.url).resolve("@electric-sql/pglite");
  const { version } = JSON.parse(readFileSync(join(dirname(main), "../package.json"), "utf8")) as { version: string };
  const parts = [version, clockDefinition, lookDefinition, saveState.toString(), ...migrations.map(({ text }) => text)];
  return createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 32);
}
