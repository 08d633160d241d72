/**
 * Every variable Millrace reads, once. From this table come parsing, `millrace config`, docs/reference/configuration.md (a test
 * compares) and the warning about names that look like ours and are not.
 */
import { type Addresses, readAddresses, wrongAddress } from "../access/addresses.ts";
import { type Emails, readEmails } from "../access/people.ts";
import { type RateLimits, readRateLimits } from "../access/rate-limits.ts";
import { type GivenToken, readGivenTokens } from "../access/tokens.ts";
import { readSafeOrigin, readSafeUrl } from "../access/web-address.ts";
import { MillraceError } from "../core/errors.ts";
import { didYouMean } from "../core/options.ts";

interface Variable<Value> {
  /** First the name to use, then aliases; the first one that is set counts. */
  readonly names: readonly string[];
  readonly kind: string;
  readonly about: string;
  readonly default: Value;
  /** Its value is not to be shown, not even when it is wrong. */
  readonly secret?: boolean;
  /** Undefined when the text is not allowed. */
  read(text: string): Value | undefined;
  /** Of a text that is not allowed, the part that is wrong, where there are several. */
  wrong?(text: string): string | undefined;
}

const text = (names: readonly string[], about: string): Variable<string | undefined> => ({
  names,
  about,
  kind: "text",
  default: undefined,
  read: (value) => (value === "" ? undefined : value),
});
const textWithDefault = (
  names: readonly string[],
  value: string,
  about: string,
  allowed: RegExp,
  kind: string,
): Variable<string> => ({
  names,
  about,
  kind,
  default: value,
  read: (given) => (allowed.test(given) ? given : undefined),
});
const whole = (names: readonly string[], value: number, min: number, max: number, about: string): Variable<number> => ({
  names,
  about,
  kind: `whole number ${min} to ${max}`,
  default: value,
  read: (given) => (/^\d+$/.test(given) && Number(given) >= min && Number(given) <= max ? Number(given) : undefined),
});
const wholeOrNone = (
  names: readonly string[],
  min: number,
  max: number,
  about: string,
): Variable<number | undefined> => ({ ...whole(names, min, min, max, about), default: undefined });
const flag = (names: readonly string[], value: boolean, about: string): Variable<boolean> => ({
  names,
  about,
  kind: "1, true, yes, on or 0, false, no, off",
  default: value,
  read: (given) => (/^(1|true|yes|on)$/i.test(given) ? true : /^(0|false|no|off)$/i.test(given) ? false : undefined),
});
const list = (names: readonly string[], about: string): Variable<readonly string[] | undefined> => ({
  names,
  about,
  kind: "comma-separated list",
  default: undefined,
  read(given) {
    const items = given.split(",").map((item) => item.trim());
    return items.every((item) => item !== "") ? items : undefined;
  },
});
const portList: Variable<readonly number[]> = {
  names: ["MILLRACE_PORTS", "PORT"],
  kind: "comma-separated ports, 0 to 65535",
  default: [3003],
  about: "Ports the server listens on; `3001,3003,4001,9000` answers the URLs of all five runbooks.",
  read: (given) => {
    const ports = given.split(",").map((item) => (/^\s*\d{1,5}\s*$/.test(item) ? Number(item) : -1));
    return ports.every((port) => port >= 0 && port <= 65_535) ? ports : undefined;
  },
};

const givenTokens: Variable<readonly GivenToken[] | undefined> = {
  names: ["API_TOKENS", "MILLRACE_API_TOKENS"],
  kind: 'name:role:token, separated by commas, or [{"token","role","name"}]; tokens of at least 16 characters; roles viewer, operator, admin',
  default: undefined,
  secret: true,
  about: "Tokens that let callers of the API in, beside those that `millrace token create` makes.",
  read: readGivenTokens,
};
const addresses = (names: readonly string[], about: string): Variable<Addresses | undefined> => ({
  names,
  about,
  kind: "addresses and CIDRs, separated by commas or as a JSON array",
  default: undefined,
  read: readAddresses,
  wrong: wrongAddress,
});
const share = (names: readonly string[], value: number, about: string): Variable<number> => ({
  names,
  about,
  kind: "number above 0, 1 at most",
  default: value,
  read: (given) =>
    /^(\d+(\.\d+)?|\.\d+)$/.test(given) && Number(given) > 0 && Number(given) <= 1 ? Number(given) : undefined,
});
const rateLimits: Variable<RateLimits | undefined> = {
  names: ["MILLRACE_RATE_LIMITS"],
  kind: "requests per minute and caller by class, such as `api=6000,ops=600`; 0: no limit; classes api, ops, enqueue, stream, public",
  default: undefined,
  about:
    "Requests that one caller may make, by class of route: api reads, ops steers, enqueue brings jobs, stream waits, public is for anybody; health probes are not limited. Default: api=6000,ops=600,enqueue=0,stream=600,public=120.",
  read: readRateLimits,
};
const issuer: Variable<string | undefined> = {
  names: ["OIDC_ISSUER"],
  kind: "https URL; http only on this machine",
  default: undefined,
  about: "The OpenID Connect provider that people sign in at. Needs OIDC_CLIENT_ID and MILLRACE_PUBLIC_URL.",
  read: (given) => (readSafeUrl(given) === undefined ? undefined : given),
};
const publicUrl: Variable<string | undefined> = {
  names: ["MILLRACE_PUBLIC_URL"],
  kind: "https URL without a path; http only on this machine",
  default: undefined,
  about:
    "Where browsers find this server; the provider sends people back to its /auth/callback. With https, cookies are for https alone.",
  read: readSafeOrigin,
};
const opsAdmins: Variable<Emails | undefined> = {
  names: ["OPS_ADMIN_EMAILS"],
  kind: "e-mail addresses, separated by commas or as a JSON array",
  default: undefined,
  about: "People who become admins, by verified e-mail. When it is set, other people do not see /api/ops/queues.",
  read: readEmails,
};

export const variables = {
  databaseUrl: text(
    ["DATABASE_URL"],
    "PostgreSQL 14 or newer. Unset: embedded PGlite in MILLRACE_DATA_DIR, one process.",
  ),
  listenUrl: text(
    ["MILLRACE_LISTEN_URL"],
    "A direct connection for LISTEN when DATABASE_URL goes through a pooler; without it workers poll.",
  ),
  pooler: flag(
    ["MILLRACE_POOLER"],
    false,
    "DATABASE_URL is a pooler in transaction mode: no prepared statements, no session settings.",
  ),
  schema: textWithDefault(
    ["MILLRACE_SCHEMA"],
    "millrace",
    "Schema of all tables.",
    /^[A-Za-z_][A-Za-z0-9_]{0,47}$/,
    "identifier, 48 characters at most",
  ),
  dataDir: textWithDefault(["MILLRACE_DATA_DIR"], "./.millrace", "Holds everything embedded.", /./, "folder"),
  poolSize: whole(
    ["MILLRACE_DB_MAX_CONNECTIONS", "PGFLOW_DB_MAX_CONNECTIONS"],
    10,
    2,
    500,
    "Connections to PostgreSQL per process, besides one for LISTEN.",
  ),
  migrate: flag(
    ["MILLRACE_MIGRATE_ON_STARTUP", "PGFLOW_MIGRATE_ON_STARTUP"],
    true,
    "Bring the schema up to date at start.",
  ),
  ports: portList,
  host: textWithDefault(["MILLRACE_HOST"], "127.0.0.1", "Interface the server listens on.", /./, "address"),
  apiTokens: givenTokens,
  trustProxy: addresses(
    ["MILLRACE_TRUST_PROXY", "TRUST_PROXY"],
    "Proxies whose X-Forwarded-For is believed. Default: none; the socket says where a request comes from.",
  ),
  rateLimits,
  healthAllowlist: addresses(
    ["HEALTH_ALLOWLIST", "MILLRACE_HEALTH_ALLOWLIST"],
    "Who sees all of `GET /health` without credentials. Default: nobody; strangers learn that it answers.",
  ),
  diskThreshold: share(
    ["DISK_HEALTH_THRESHOLD", "MILLRACE_DISK_HEALTH_THRESHOLD"],
    0.9,
    "The share of the disk that may be full; from there on `GET /health/test` is 503.",
  ),
  oidcIssuer: issuer,
  oidcClientId: text(["OIDC_CLIENT_ID"], "The name that the provider knows this server by."),
  oidcClientSecret: {
    ...text(["OIDC_CLIENT_SECRET"], "Its secret there. Unset: a public client, which PKCE alone protects."),
    secret: true,
  },
  oidcRoleClaim: text(
    ["OIDC_ROLE_CLAIM"],
    "The claim whose values viewer, operator or admin give the role; `realm_access.roles` is looked for inside.",
  ),
  oidcDefaultRole: textWithDefault(
    ["OIDC_DEFAULT_ROLE"],
    "viewer",
    "Role of those whom the claim names none; `none`: they stay out.",
    /^(viewer|operator|admin|none)$/,
    "viewer, operator, admin or none",
  ),
  opsAdmins,
  publicUrl,
  sessionIdleMinutes: whole(
    ["SESSION_IDLE_MINUTES"],
    30,
    1,
    1_440,
    "Unused for so long, a session of somebody who signed in ends.",
  ),
  sessionAbsoluteHours: whole(
    ["SESSION_ABSOLUTE_HOURS"],
    12,
    1,
    720,
    "So long after its sign-in it ends, used or not.",
  ),
  adminAddr: text(
    ["MILLRACE_ADMIN_ADDR", "PGFLOW_ADMIN_ADDR"],
    "`host:port` to listen on instead, or `off`, `0`, `false`, `none`: no API in this process.",
  ),
  workerName: text(
    ["MILLRACE_WORKER_ID", "PGFLOW_WORKER_ID", "WORKER_ID"],
    "Name of this worker. Default: host name and process id.",
  ),
  queues: list(
    ["MILLRACE_QUEUE", "PGFLOW_QUEUE"],
    "Queues this process works on, beside `maintenance`. Default: every queue; jobs without one go to `default`.",
  ),
  servesMaintenance: flag(
    ["MILLRACE_MAINTENANCE"],
    true,
    "Serve the queue `maintenance` too, whatever queues this process is bound to: bulk operations and upkeep. One process at least must.",
  ),
  concurrency: whole(
    ["WORKER_MAX_CONCURRENT_TASKS", "MILLRACE_CONCURRENCY"],
    10,
    1,
    10_000,
    "Jobs running at once per process.",
  ),
  leaseSeconds: whole(
    ["MILLRACE_LEASE_SECONDS", "PGFLOW_LEASE_SECONDS"],
    10,
    1,
    3_600,
    "A worker that has not beaten for this long is dead; its jobs are queued again.",
  ),
  reapIntervalMs: whole(
    ["MILLRACE_REAP_INTERVAL_MS", "PGFLOW_REAP_INTERVAL_MS"],
    5_000,
    250,
    60_000,
    "How often workers look for dead workers.",
  ),
  maxPayloadBytes: whole(
    ["MILLRACE_MAX_PAYLOAD_BYTES", "PGFLOW_MAX_PAYLOAD_BYTES"],
    262_144,
    1,
    64_000_000,
    "Largest input of a job, as JSON. A queue's policy may allow less.",
  ),
  maxEnqueuePerMinute: wholeOrNone(
    ["MILLRACE_MAX_ENQUEUE_PER_MINUTE", "PGFLOW_MAX_ENQUEUE_PER_MINUTE", "MAX_ENQUEUE_PER_MINUTE"],
    1,
    2_147_483_647,
    "Jobs a queue takes per minute of the clock, unless its policy says otherwise; more are refused as ENQUEUE_RATE_EXCEEDED.",
  ),
  scheduler: flag(
    ["MILLRACE_SCHEDULER"],
    true,
    "Define the app's schedules and fire what is due in this process. Any number of processes may.",
  ),
  maintenanceSeconds: whole(
    ["MAINTENANCE_INTERVAL_SECS"],
    60,
    0,
    86_400,
    "How often old jobs are archived and pruned; 0: never by this process.",
  ),
  archiveDays: whole(
    ["ARCHIVE_SUCCEEDED_AFTER_DAYS"],
    7,
    0,
    3_650,
    "Successes are archived so many days after they ended.",
  ),
  pruneDays: whole(
    ["PRUNE_HISTORY_AFTER_DAYS"],
    7,
    0,
    3_650,
    "So many days after that, a job is deleted with its history.",
  ),
  keepFailedDays: whole(
    ["KEEP_FAILED_DAYS"],
    180,
    1,
    3_650,
    "Dead letters are deleted after so many days, unless the queue's policy says otherwise.",
  ),
  metricsPrefix: textWithDefault(
    ["METRICS_PREFIX"],
    "millrace_",
    "Before the names of Millrace's own metrics; `trendspark_` makes the queries of runbook 001 work as written.",
    /^[a-z][a-z0-9_]{0,39}$/,
    "lower-case letters, digits and _, 40 at most, a letter first",
  ),
  logLevel: textWithDefault(
    ["MILLRACE_LOG_LEVEL", "LOG_LEVEL"],
    "info",
    "Least level that is written.",
    /^(debug|info|warn|error|silent)$/,
    "debug, info, warn, error or silent",
  ),
} as const;

export type Config = { readonly [Name in keyof typeof variables]: (typeof variables)[Name]["default"] };

/** What holds where nothing is set, as it would be written; undefined: nothing. */
export function defaultText({ default: usual }: { readonly default: unknown }): string | undefined {
  return usual === undefined ? undefined : String(usual as string | number | boolean | readonly number[]);
}

/** Reads the environment. Throws `CONFIG_INVALID`, naming the variable, the value and what is allowed. */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const entries = Object.entries(variables).map(([key, variable]: [string, Variable<unknown>]) => {
    const name = variable.names.find((candidate) => env[candidate] !== undefined && env[candidate] !== "");
    if (name === undefined) return [key, variable.default];
    const value = variable.read((env[name] as string).trim());
    if (value !== undefined) return [key, value];
    // A URL may hold a password, but none can be wrong.
    const shown = variable.secret ? name : `${name}=${env[name]}`;
    const part = variable.wrong?.((env[name] as string).trim());
    const why = part === undefined ? "" : `, because of ${JSON.stringify(part)}`;
    throw new MillraceError("CONFIG_INVALID", `${shown} is not allowed${why}: it must be ${variable.kind}.`);
  });
  return Object.fromEntries(entries) as Config;
}

/** For commands that ask a server: docs/reference/cli.md. */
const commandVariables = ["MILLRACE_TOKEN", "MILLRACE_PROFILE", "MILLRACE_PROFILES"];

/** One sentence for each variable that begins like ours and is none of ours. */
export function unknownVariables(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = [
    ...Object.values(variables).flatMap((variable: Variable<unknown>) => [...variable.names]),
    ...commandVariables,
  ];
  return Object.keys(env)
    .filter(
      (name) =>
        /^(MILLRACE|PGFLOW)_/.test(name) &&
        !known.includes(name) &&
        !name.startsWith("MILLRACE_TEST_") &&
        !name.startsWith("MILLRACE_BENCH_"),
    )
    .map((name) => `${name} is set, but Millrace has no such variable.${didYouMean(name, known)}`);
}
