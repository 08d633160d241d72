import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { writeSnapshot } from "./pglite-snapshot.ts";

declare module "vitest" {
  interface ProvidedContext {
    pgliteSnapshot: string;
  }
}

/** Once per run, before the files of the project `pglite`. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-pglite-"));
  const file = join(folder, "snapshot.tar");
  await writeSnapshot(file);
  project.provide("pgliteSnapshot", file);
  return () => rm(folder, { recursive: true, force: true });
}
