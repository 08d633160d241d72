// charge.test.ts
import { testMillrace } from "millrace/testing";
import { expect, test } from "vitest";
import { app, charge, shop } from "./shop.ts";

test("whatever statement it dies at, the card is charged once", async () => {
  await using mill = await testMillrace(app);
  await mill.pglite.exec("create table charges (order_id text)");

  await mill.eachCrash(
    async (mill) => {
      shop.mill = mill;
      await mill.enqueue(charge, { order: "order-1" }, { idempotencyKey: "order-1" });
      await mill.runUntilIdle();
    },
    async (mill) => {
      shop.mill = mill;
      await mill.enqueue(charge, { order: "order-1" }, { idempotencyKey: "order-1" });
      await mill.runUntilIdle();
      expect((await mill.pglite.query("select * from charges")).rows).toEqual([{ order_id: "order-1" }]);
    },
  );
}, 60_000);
