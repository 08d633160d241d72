/**
 * Loads an app module: TypeScript as it is written, no build step.
 *
 * tsx hooks into this process's own module loader, so the module's `import "millrace"` and this file's are one and the same: its
 * `MillraceError` is ours. The paths of our own tsconfig.json, which name our sources, must not apply to it.
 */
import { existsSync } from "node:fs";
import { register as registerHook } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { register as registerTypescript } from "tsx/esm/api";
import { type App, isApp } from "../app/app.ts";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";

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

/**
 * A TypeScript file is an ES module, whatever its package.json says or fails to say. As CommonJS it could not load this package
 * while this package loads it, and would be given a second copy.
 */
const typescriptIsEsm = `export async function resolve(specifier, context, next) {
  const found = await next(specifier, context);
  const commonjs = found.format?.startsWith("commonjs") && /\\.tsx?([?#]|$)/.test(found.url);
  return commonjs ? { ...found, format: "module" } : found;
}`;

async function load(path: string): Promise<Record<string, unknown>> {
  const ownSettings = new URL("../../tsconfig.json", import.meta.url);
  registerTypescript(existsSync(ownSettings) ? { tsconfig: false } : {});
  registerHook(`data:text/javascript,${encodeURIComponent(typescriptIsEsm)}`);
  try {
    return (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>;
  } catch (cause) {
    throw new MillraceError("APP_INVALID", `${path} could not be loaded: ${(cause as Error).message}`, { cause });
  }
}
