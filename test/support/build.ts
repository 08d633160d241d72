/**
 * Our TypeScript as JavaScript, for processes under test: they start in a quarter of the time they take from source, and the CLI
 * is what is published. Built by the first test of a run that asks (see setup-build.ts); a run that starts no process builds nothing.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { inject } from "vitest";

const root = resolve(import.meta.dirname, "../..");

export interface Build {
  /** The CLI's program. */
  readonly cli: string;
  /** For tsx: TypeScript that imports `millrace` is given the build. */
  readonly env: { readonly TSX_TSCONFIG_PATH: string };
}

/** The package. */
export function builtPackage(): Build {
  const folder = built("package", "tsconfig.build.json", "dist");
  return { cli: join(folder, "dist/cli/main.js"), env: { TSX_TSCONFIG_PATH: join(folder, "millrace.json") } };
}

/** The folder of the programs in test/postgres/fixtures. */
export function builtFixtures(): string {
  return join(built("fixtures", "test/postgres/fixtures", "."), "test/postgres/fixtures");
}

function built(name: string, project: string, outDir: string): string {
  const home = inject("builds");
  const folder = join(home, name);
  if (existsSync(folder)) return folder;
  const own = mkdtempSync(join(home, `${name}-`));
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
  // Types are checked elsewhere, and nobody reads declarations here.
  const quick = ["--noCheck", "--declaration", "false", "--declarationMap", "false"];
  execFileSync(process.execPath, [tsc, "-p", join(root, project), "--outDir", join(own, outDir), ...quick], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  copyFileSync(join(root, "package.json"), join(own, "package.json"));
  symlinkSync(join(root, "node_modules"), join(own, "node_modules"), "junction");
  const paths = { millrace: ["./dist/index.js"], "millrace/*": ["./dist/*.js", "./dist/*/index.js"] };
  writeFileSync(join(own, "millrace.json"), JSON.stringify({ compilerOptions: { paths } }));
  try {
    renameSync(own, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
    rmSync(own, { recursive: true, force: true }); // another test file was first
  }
  return folder;
}
