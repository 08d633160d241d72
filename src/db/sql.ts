/**
 * The only way SQL is written in this project.
 *
 * A `sql` template is inert text plus values: nothing runs until it is handed to a database. Values become `$1, $2, …`; another
 * `sql` template is spliced in place, so a query is composed from parts without ever concatenating user input.
 *
 * Tables are written with the default schema, `millrace.jobs`, so that a statement can be read and pasted as it stands;
 * `Dialect` puts the configured schema in its place.
 */
export class Sql {
  readonly strings: readonly string[];
  readonly values: readonly unknown[];

  constructor(strings: readonly string[], values: readonly unknown[]) {
    this.strings = strings;
    this.values = values;
  }
}

export function sql(strings: TemplateStringsArray, ...values: unknown[]): Sql {
  return new Sql(strings, values);
}

/** The parts one after another, with `separator` between them. No parts is an empty fragment. */
export function join(parts: readonly Sql[], separator: Sql): Sql {
  return parts.length === 0
    ? sql``
    : parts.slice(1).reduce((all, part) => sql`${all}${separator}${part}`, parts[0] as Sql);
}

/** A statement ready for a driver. The name lets the driver keep it prepared. */
export interface Statement {
  readonly text: string;
  readonly values: unknown[];
  readonly name?: string;
}

/** Turns templates into statements for one schema. */
export class Dialect {
  readonly schema: string;
  readonly #prepared: boolean;
  /** By shape: which templates, nested how. There are as many as the code can compose, a few dozen. */
  readonly #rendered = new Map<string, { text: string; name: string }>();
  static readonly #ids = new WeakMap<readonly string[], number>();
  static #lastId = 0;
  static #lastName = 0;

  /** `prepared: false` leaves statements unnamed, for poolers that cannot keep prepared statements. */
  constructor(schema: string, prepared: boolean) {
    this.schema = schema;
    this.#prepared = prepared;
  }

  /** `millrace.jobs` → `"my_schema".jobs`, in statements and in migrations. */
  inSchema(text: string): string {
    return this.schema === "millrace" ? text : text.replaceAll(/\bmillrace\./g, `${quoteIdent(this.schema)}.`);
  }

  statement(query: Sql): Statement {
    const values: unknown[] = [];
    const shape = flatten(query, values);
    let rendered = this.#rendered.get(shape);
    if (!rendered) {
      rendered = { text: this.inSchema(render(query, { count: 0 })), name: `millrace_${(Dialect.#lastName += 1)}` };
      this.#rendered.set(shape, rendered);
    }
    return this.#prepared ? { text: rendered.text, values, name: rendered.name } : { text: rendered.text, values };
  }

  /** A template literal's strings are one array per place in the code: its identity names the template. */
  static id(strings: readonly string[]): number {
    let id = Dialect.#ids.get(strings);
    if (id === undefined) Dialect.#ids.set(strings, (id = Dialect.#lastId += 1));
    return id;
  }
}

/** Collects the values in order; returns the shape. */
function flatten(query: Sql, values: unknown[]): string {
  let shape = String(Dialect.id(query.strings));
  for (const value of query.values) {
    if (value instanceof Sql) shape += `(${flatten(value, values)})`;
    else {
      shape += ",";
      values.push(value);
    }
  }
  return shape;
}

function render(query: Sql, numbers: { count: number }): string {
  return query.strings.reduce((text, chunk, i) => {
    const value = query.values[i - 1];
    return text + (value instanceof Sql ? render(value, numbers) : `$${(numbers.count += 1)}`) + chunk;
  });
}

export function quoteIdent(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * A PostgreSQL array literal from values that need no quoting: numbers, booleans, UUIDs. Much cheaper than letting a driver
 * look at each element, and the hot path sends hundreds at a time.
 */
export function arrayLiteral(values: readonly (number | string | boolean | null)[]): string {
  return `{${values.map((value) => value ?? "NULL").join(",")}}`;
}

/**
 * A PostgreSQL array literal of texts. JSON's escapes for a quoted string are a subset of what an array literal understands as
 * long as the text holds no control characters, so those that would matter are escaped by backslash alone.
 */
export function textArrayLiteral(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? "NULL" : `"${value.replaceAll(/["\\]/g, "\\$&")}"`)).join(",")}}`;
}
