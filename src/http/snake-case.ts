/** Our documents in the API's spelling: `runAt` becomes `run_at`, all the way down; values stay as they are. */

type SnakeKey<Key> = Key extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `_${Lowercase<First>}`}${SnakeKey<Rest>}`
  : Key;

type SnakeCased<Value> = Value extends Date
  ? Value
  : Value extends readonly (infer Item)[]
    ? readonly SnakeCased<Item>[]
    : Value extends object
      ? { readonly [Key in keyof Value as SnakeKey<Key>]: SnakeCased<Value[Key]> }
      : Value;

export function snakeCased<Value>(value: Value): SnakeCased<Value> {
  return spelt(value) as SnakeCased<Value>;
}

function spelt(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(spelt);
  if (typeof value !== "object" || value === null || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [snakeKey(key), spelt(inner)]));
}

export function snakeKey(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
