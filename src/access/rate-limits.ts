/** How often one caller may ask, by class of route. */

export const limitedClasses = ["api", "ops", "enqueue", "stream", "public"] as const;
export type LimitedClass = (typeof limitedClasses)[number];

/** Requests per minute; 0: no limit. */
export type RateLimits = Readonly<Record<LimitedClass, number>>;

/** Enough for consoles, scrapers and scripts. What may be enqueued is for the policies of queues to say. */
export const defaultRateLimits: RateLimits = { api: 6_000, ops: 600, enqueue: 0, stream: 600, public: 120 };

/** `api=6000,ops=600`: those that are not named keep their default. Undefined when it is not that. */
export function readRateLimits(text: string): RateLimits | undefined {
  const limits: Record<string, number> = { ...defaultRateLimits };
  for (const item of text.split(",")) {
    const [, name = "", most = ""] = /^\s*(\w+)\s*=\s*(\d{1,9})\s*$/.exec(item) ?? [];
    if (!Object.hasOwn(limits, name)) return undefined;
    limits[name] = Number(most);
  }
  return limits as RateLimits;
}
