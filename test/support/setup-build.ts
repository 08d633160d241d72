import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    builds: string;
  }
}

/** Once per run, before the files of both projects: the folder for what build.ts makes, empty again whenever code has changed. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-builds-"));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  project.provide("builds", folder);
  project.onTestsRerun(async () => {
    await remove();
    await mkdir(folder);
  });
  return remove;
}
