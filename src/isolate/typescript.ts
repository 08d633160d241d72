/**
 * Loading TypeScript as it is written, no build step: for the app module, and for handlers in their own thread or process.
 *
 * tsx hooks into this thread's own module loader, so a module's `import "millrace"` and this file's are one and the same: its
 * `MillraceError` is ours. The paths of our own tsconfig.json, which name our sources, must not apply to it.
 */
import { existsSync } from "node:fs";
import { register as registerHook } from "node:module";
import { register as registerTypescript } from "tsx/esm/api";

/**
 * A TypeScript file is an ES module, whatever its package.json says or fails to say. As CommonJS it could not load this package
 * while this package loads it, and would be given a second copy.
 */
const typescriptIsEsm = `export async function resolve(specifier, context, next) {
  const found = await next(specifier, context);
  const commonjs = found.format?.startsWith("commonjs") && /\\.tsx?([?#]|$)/.test(found.url);
  return commonjs ? { ...found, format: "module" } : found;
}`;

/** From here on, this thread can import TypeScript. */
export function loadTypescript(): void {
  const ownSettings = new URL("../../tsconfig.json", import.meta.url);
  registerTypescript(existsSync(ownSettings) ? { tsconfig: false } : {});
  registerHook(`data:text/javascript,${encodeURIComponent(typescriptIsEsm)}`);
}
