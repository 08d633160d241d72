/** The four methods Millrace needs of a logger. pino, console and winston satisfy it as they are. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A library does not write to its host's terminal unless asked. */
export const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
