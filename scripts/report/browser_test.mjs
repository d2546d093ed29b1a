// Reports in a headless Chromium: no error, no request, sorting, filtering, themes, keyboard, phone, print, and texts that
// stay text. Run by browser_test.sh, which brings the packages.
//
//   node browser_test.mjs FOLDER_OF_PAGES FOLDER_FOR_SCREENSHOTS CHROMIUM
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.REPORT_PACKAGES, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [pages, shots, executablePath] = process.argv.slice(2);
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

let failures = 0;
const check = (name, holds, what) => {
  if (holds) return;
  failures += 1;
  console.log(`FAILED ${name}: ${what}`);
};

const browser = await chromium.launch({ executablePath, args: FLAGS });
const open = async (file, options) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const seen = [];
  page.on("console", (message) => seen.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => seen.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { seen.push("a dialog"); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) seen.push(`request: ${request.url()}`);
  });
  await page.goto(pathToFileURL(join(pages, file)).href);
  await page.evaluate(() => document.fonts.ready);
  return { context, page, seen };
};

const cells = (page, column) => page.evaluate((name) => {
  const heads = [...document.querySelectorAll("#row-table thead th")];
  const at = heads.findIndex((head) => head.textContent.replace(/ [▲▼]$/, "") === name);
  return [...document.querySelectorAll("#row-table tbody tr")].map((row) => row.cells[at].textContent);
}, column);
// Of a page longer than a browser likes to draw at once, the beginning.
const shoot = async (page, file) => {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.screenshot({ path: join(shots, file), fullPage: height < 20000, timeout: 120000 });
};
const status = (page) => page.textContent("#row-status");

for (const file of readdirSync(pages).filter((name) => name.endsWith(".html")).sort()) {
  const name = file.replace(/\.html$/, "");

  // What stands there without a script is what the script puts there.
  const plain = await open(file, { javaScriptEnabled: false });
  const first = await plain.page.locator("#row-table tbody tr").allTextContents();
  const figures = await plain.page.locator("figure svg[role=img][aria-label]").count();
  check(name, figures === await plain.page.locator("figure").count(), "a figure has no label");
  await plain.context.close();

  for (const scheme of ["light", "dark"]) {
    const { context, page, seen } = await open(file, { colorScheme: scheme });
    const scripted = await page.locator("#row-table tbody tr").allTextContents();
    const differing = first.findIndex((line, at) => line !== scripted[at]);
    check(name, differing < 0, `row ${differing} differs with a script: ${first[differing]} | ${scripted[differing]}`);
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const isDark = (color) => color.match(/\d+/g).slice(0, 3).every((part) => Number(part) < 60);
    check(name, isDark(await background()) === (scheme === "dark"), `the page does not follow the scheme ${scheme}`);
    await shoot(page, `${name}-${scheme}.png`);
    // Everything open: what is folded has to be accessible too.
    await page.evaluate(() => document.querySelectorAll("details").forEach((it) => { it.open = true; }));
    await page.evaluate(axe);
    const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, nodes } of found.violations) {
      check(name, false, `axe in ${scheme}: ${id} at ${nodes.slice(0, 3).map((node) => node.target).join(" and ")} (${nodes.length})`);
    }
    await page.click("#theme");
    check(name, isDark(await background()) === (scheme !== "dark"), "the button does not switch the colours");
    check(name, seen.length === 0, `${scheme}: ${seen.join("; ")}`);
    await context.close();
  }

  const { context, page, seen } = await open(file, { viewport: { width: 390, height: 844 } });
  check(name, await page.evaluate(() => document.documentElement.scrollWidth) <= 390, "wider than a phone");
  await shoot(page, `${name}-phone.png`);

  // Sorting by mouse and by keyboard.
  const head = page.locator("#row-table thead button").first();
  const column = await head.getAttribute("data-column");
  await head.click();
  const up = await cells(page, column);
  const sorted = await page.locator("#row-table thead th[aria-sort]");
  check(name, await sorted.count() === 1 && await sorted.getAttribute("aria-sort") === "ascending", "aria-sort is not said");
  const order = [...up].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  check(name, JSON.stringify(up) === JSON.stringify(order), `not sorted by ${column}`);
  check(name, await page.evaluate(() => document.activeElement.dataset.column) === column, "sorting loses the focus");
  await page.keyboard.press("Enter");
  check(name, await page.locator("#row-table thead th").first().getAttribute("aria-sort") === "descending", "Enter does not sort");
  await page.keyboard.press("Tab");
  const next = await page.evaluate(() => document.activeElement.dataset.column);
  check(name, next !== undefined && next !== column, "Tab does not lead to the next column");

  // Filtering.
  const all = Number((await status(page)).match(/^(\d+) of (\d+)/)[2]);
  const filter = async (text) => {
    await page.fill("#row-filter", text);
    await page.waitForTimeout(200);
    return status(page);
  };
  // One of the run's variants, where it has several to choose from.
  const variants = await page.locator("#row-selects label", { hasText: /^variant/ }).locator("option").allTextContents();
  if (variants.length > 0) {
    const one = `variant=${variants[1]}`;
    const kept = Number((await filter(one)).match(/^(\d+) of/)?.[1] ?? -1);
    check(name, kept > 0 && kept < all, `${one} keeps ${kept} of ${all}`);
  }
  check(name, (await filter("speed=1")).includes("no column speed"), "an unknown column is not told");
  check(name, (await filter("no-such-word-anywhere")).startsWith("0 of"), "words do not filter");
  check(name, (await filter("")).startsWith(`${all} of`), "an empty filter does not keep all");
  if (all > 100) {
    const before = await page.locator("#row-table tbody tr").first().textContent();
    await page.click("#row-after");
    check(name, before !== await page.locator("#row-table tbody tr").first().textContent(), "no next rows");
  }
  const [save] = await Promise.all([page.waitForEvent("download"), page.click("#row-save")]);
  const saved = readFileSync(await save.path(), "utf8");
  check(name, saved.split("\n")[0].split(",").length > 5, "the saved rows have no columns");

  // The first key leads past the navigation.
  await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
  await page.reload();
  await page.keyboard.press("Tab");
  check(name, await page.evaluate(() => document.activeElement.className) === "skip", "the skip link is not first");
  check(name, seen.length === 0, `phone: ${seen.join("; ")}`);
  check(name, await page.locator("img").count() === 0, "a text became a tag");
  await page.pdf({ path: join(shots, `${name}.pdf`), preferCSSPageSize: true, printBackground: true });
  await context.close();
  console.log(`${name}: ${all} rows, ${figures} figures`);
}
await browser.close();
console.log(failures === 0 ? "all reports pass" : `${failures} checks failed`);
process.exit(failures === 0 ? 0 : 1);
