/** Loads an app module: TypeScript as it is written, no build step. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type App, isApp } from "../app/app.ts";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { loadTypescript } from "../isolate/typescript.ts";

export interface AppModule {
  readonly path: string;
  readonly app: App;
  /**
   * The module's own `start`, if it has one: called once in each process that runs its tasks, after migrations and before the first
   * job. It runs again at every start, and in several processes at once.
   */
  readonly start: ((mill: Millrace) => unknown) | undefined;
}

const usual = ["app.ts", "app.js", "app.mjs"];

/** Throws `APP_INVALID`. Without a path, looks for the usual names in the working folder. */
export async function loadApp(given: string | undefined): Promise<AppModule> {
  const path = given ?? usual.find((name) => existsSync(name));
  if (path === undefined)
    throw new MillraceError("APP_INVALID", `No --app was given, and there is no ${usual.join(", ")} in this folder.`);
  if (!existsSync(path)) throw new MillraceError("APP_INVALID", `There is no file ${path}.`);
  const module = await load(path);
  const { default: app, start } = module;
  if (!isApp(app))
    throw new MillraceError("APP_INVALID", `The default export of ${path} is not an app made by defineApp({ tasks }).`);
  if (start !== undefined && typeof start !== "function")
    throw new MillraceError("APP_INVALID", `${path} exports "start", but it is not a function.`);
  return { path, app, start: start as AppModule["start"] };
}

async function load(path: string): Promise<Record<string, unknown>> {
  loadTypescript();
  try {
    return (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>;
  } catch (cause) {
    throw new MillraceError("APP_INVALID", `${path} could not be loaded: ${(cause as Error).message}`, { cause });
  }
}
