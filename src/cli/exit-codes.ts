/** What the shell is told. docs/reference/cli.md has the table; scripts rely on it. */
import { type ErrorCode, MillraceError } from "../core/errors.ts";

export const exitCodes = {
  ok: 0,
  /** What was asked for did not work. */
  failed: 1,
  /** Nothing was tried: an argument, a variable or the app module is wrong. */
  usage: 2,
  /** No database to work with: not reachable, too old, or held by another process. */
  database: 3,
  /** The schema is not the one this version works with: behind or newer. */
  schema: 4,
  /** A worker that was ordered to be recycled holds a job that cannot be stopped: start the process again. */
  restart: 5,
} as const;

const byCode: Partial<Record<ErrorCode, number>> = {
  OPTION_UNKNOWN: exitCodes.usage,
  OPTION_INVALID: exitCodes.usage,
  QUEUE_NAME_INVALID: exitCodes.usage,
  TASK_NAME_INVALID: exitCodes.usage,
  TASK_DUPLICATE: exitCodes.usage,
  SCHEDULE_INVALID: exitCodes.usage,
  SCHEDULE_DUPLICATE: exitCodes.usage,
  BAD_REQUEST: exitCodes.usage,
  FILTER_TOO_WIDE: exitCodes.usage,
  FLOW_INVALID: exitCodes.usage,
  FLOW_CYCLE: exitCodes.usage,
  CONFIG_INVALID: exitCodes.usage,
  APP_INVALID: exitCodes.usage,
  DATABASE_UNREACHABLE: exitCodes.database,
  DATABASE_UNSUPPORTED: exitCodes.database,
  EMBEDDED_IN_USE: exitCodes.database,
  DATABASE_BEHIND: exitCodes.schema,
  DATABASE_NEWER: exitCodes.schema,
};

export function exitCodeOf(error: unknown): number {
  return (error instanceof MillraceError ? byCode[error.code] : undefined) ?? exitCodes.failed;
}
