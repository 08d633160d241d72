import type { TestProject } from "vitest/node";
import { startPostgres } from "./postgres-server.ts";

declare module "vitest" {
  interface ProvidedContext {
    postgresUrl: string;
  }
}

/** Once per run, before the files of the project `postgres`: uses your server when TEST_DATABASE_URL is set, else starts one. */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const yours = process.env["TEST_DATABASE_URL"];
  if (yours) {
    project.provide("postgresUrl", yours);
    return undefined;
  }
  const server = await startPostgres();
  project.provide("postgresUrl", server.url);
  return () => server.stop();
}
