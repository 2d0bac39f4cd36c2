// What a team writes against the generated types; `run` checks it and runs it.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { env, exit } from "node:process";

import createClient from "openapi-fetch";

import { ErrorCode, type components, type paths } from "./build/schema.js";

type Product = components["schemas"]["ProductResponse"];
type Order = components["schemas"]["OrderResponse"];
type User = components["schemas"]["UserResponse"];

const api = createClient<paths, "application/json">({ baseUrl: env["API_URL"] ?? "" });

async function main(email: string, password: string): Promise<void> {
  await logIn(email, password);

  const made = await Promise.all([createUser(), createUser(), createUser()]);
  const seen = new Set<string>();
  for await (const user of users()) seen.add(user.id);
  for (const user of made) assert(seen.has(user.id));

  const product = await createProduct(3);
  const [order, key] = await orderWhatThereIs(product, 5);
  assert.deepEqual(
    order.items.map(({ sku, quantity }) => [sku, quantity]),
    [[product.sku, 3]],
  );
  assert.equal(order.total_minor, 3 * product.price_minor);

  // The answer was lost on its way, say: the same key gets the same order.
  const again = await placeOrder(product, 3, key);
  assert.equal(again.data?.data.id, order.id);
  console.log(`${seen.size} users, order ${order.number} of ${order.created_at}`);
}

async function logIn(email: string, password: string): Promise<void> {
  const { data: answer, error } = await api.POST("/api/v1/auth/login", { body: { email, password } });
  if (error) throw refused(error);
  const { access_token } = answer.data;
  api.use({ onRequest: ({ request }) => request.headers.set("Authorization", `Bearer ${access_token}`) });
}

async function createUser(): Promise<User> {
  const body = { email: `${randomUUID()}@example.com`, password: randomUUID() };
  const { data: answer, error } = await api.POST("/api/v1/users", { body });
  if (error) throw refused(error);
  return answer.data;
}

/** All of them, page by page. */
async function* users(): AsyncGenerator<User> {
  for (let page = 1, pages = 1; page <= pages; page++) {
    const { data: answer, error } = await api.GET("/api/v1/users", { params: { query: { page, size: 2 } } });
    if (error) throw refused(error);
    yield* answer.data.items;
    pages = answer.data.pages;
  }
}

async function createProduct(stock: number): Promise<Product> {
  const body = { sku: randomUUID(), name: "Storm lamp", price_minor: 3490, currency: "EUR", stock };
  const { data: answer, error } = await api.POST("/api/v1/products", { body });
  if (error) throw refused(error);
  return answer.data;
}

/** The order, for fewer pieces than wanted if need be, and its Idempotency-Key. */
async function orderWhatThereIs(product: Product, wanted: number): Promise<[Order, string]> {
  const key = randomUUID();
  const { data: answer, error } = await placeOrder(product, wanted, key);
  if (answer) return [answer.data, key];
  if (error.code !== ErrorCode.PRODUCT_OUT_OF_STOCK) throw refused(error);
  const { items } = error.data as { items: [{ available: number }] };
  return orderWhatThereIs(product, items[0].available);
}

function placeOrder(product: Product, quantity: number, key: string) {
  return api.POST("/api/v1/orders", {
    params: { header: { "Idempotency-Key": key } },
    body: { items: [{ product_id: product.id, quantity }] },
  });
}

function refused(error: { code: number; msg: string }): Error {
  return new Error(`not what was asked for: ${error.code} ${error.msg}`);
}

try {
  await main(env["API_EMAIL"] ?? "", env["API_PASSWORD"] ?? "");
} catch (error) {
  console.error(error);
  exit(1);
}
