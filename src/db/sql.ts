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

/** A statement ready for a driver. Fixed text carries a name under which the driver may keep it prepared. */
export interface Statement {
  readonly text: string;
  readonly values: unknown[];
  readonly name?: string;
}

/** Turns templates into statements for one schema. */
export class Dialect {
  readonly schema: string;
  readonly #prepared: boolean;
  readonly #fixed = new WeakMap<readonly string[], { text: string; name: string }>();
  static #count = 0;

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
    const values = query.values as unknown[];
    if (values.some((value) => value instanceof Sql)) return this.#composed(query);
    let fixed = this.#fixed.get(query.strings);
    if (!fixed) {
      const text = query.strings.reduce((all, chunk, i) => `${all}$${i}${chunk}`);
      fixed = { text: this.inSchema(text), name: `millrace_${(Dialect.#count += 1)}` };
      this.#fixed.set(query.strings, fixed);
    }
    return this.#prepared ? { text: fixed.text, values, name: fixed.name } : { text: fixed.text, values };
  }

  #composed(query: Sql): Statement {
    const values: unknown[] = [];
    const render = (part: Sql): string =>
      part.strings.reduce((text, chunk, i) => {
        const value = part.values[i - 1];
        if (value instanceof Sql) return text + render(value) + chunk;
        values.push(value);
        return `${text}$${values.length}${chunk}`;
      });
    return { text: this.inSchema(render(query)), values };
  }
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
