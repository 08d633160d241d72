/** Servers by name: `--profile production` instead of `--url` and `--token`. Kept in a file that only its owner may read. */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { z } from "zod";
import { MillraceError } from "../core/errors.ts";
import { didYouMean } from "../core/options.ts";
import type { RunningApi } from "./running-api.ts";

const profile = z.object({ url: z.string(), token: z.string().exactOptional() });
const file = z.record(z.string(), profile);
export type Profiles = Readonly<Record<string, z.infer<typeof profile>>>;

/** `MILLRACE_PROFILES`, else `millrace/profiles.json` below `XDG_CONFIG_HOME` or `~/.config`. */
export function profilesFile(env: Readonly<Record<string, string | undefined>>): string {
  return (
    env["MILLRACE_PROFILES"] || join(env["XDG_CONFIG_HOME"] || join(homedir(), ".config"), "millrace", "profiles.json")
  );
}

/** Throws `CONFIG_INVALID` for a file that others may read, or that is not ours. */
export function readProfiles(path: string): Profiles {
  let text: string;
  try {
    if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0)
      throw new MillraceError("CONFIG_INVALID", `Others may read ${path}, which holds tokens: \`chmod 600 ${path}\`.`);
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return {};
    throw error;
  }
  try {
    return file.parse(JSON.parse(text));
  } catch (cause) {
    throw new MillraceError("CONFIG_INVALID", `${path} is not a file of profiles: correct or remove it.`, { cause });
  }
}

/** Throws `OPTION_INVALID`. */
export function profileOf(path: string, name: string): RunningApi {
  const profiles = readProfiles(path);
  const found = Object.hasOwn(profiles, name) ? profiles[name] : undefined;
  if (found !== undefined) return found;
  const near = didYouMean(name, Object.keys(profiles));
  throw new MillraceError("OPTION_INVALID", `There is no profile "${name}" in ${path}.${near}`);
}

/** All or nothing: written aside, then put in place. */
export function writeProfiles(path: string, profiles: Profiles): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const aside = `${path}.${process.pid}`;
  rmSync(aside, { force: true });
  writeFileSync(aside, `${JSON.stringify(profiles, undefined, 2)}\n`, { mode: 0o600, flag: "wx" });
  renameSync(aside, path);
}
