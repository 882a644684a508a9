// People in Chromium on the connect pages. Every page of the broker is judged at both sizes, light and dark.
//
//     node visit.mjs BROKER SCREENSHOTS < FLOWS     started where playwright-core and axe are installed
//
// FLOWS: {"completed": URL, …}, a fresh flow of alice's for each of the visits below.
// Prints what is wrong, one line each, and ends with 1 if there is anything.
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';

const installed = createRequire(`${process.cwd()}/`);
const { chromium } = installed('playwright-core');
const { default: AxeBuilder } = installed('@axe-core/playwright');

const [broker, screenshots] = process.argv.slice(2);
const flows = JSON.parse(await text(process.stdin));
const SIZES = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };
// What a finger hits (WCAG 2.2, 2.5.8 asks for 24).
const SMALLEST_TARGET = 40;
// For busy machines, in milliseconds. What has not come by then never comes.
const PATIENCE = 120_000;
const problems = [];

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
});

// A person's own browser.
async function person(options = {}) {
  const context = await browser.newContext({ viewport: SIZES.phone, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on('console', (message) => {
    if (/content.security.policy/i.test(message.text())) problems.push(`${page.url()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => problems.push(`${page.url()}: ${error}`));
  return page;
}

const isOurs = (url) => new URL(url).origin === broker;
const heading = (page) => page.locator('h1').innerText();

// Signs in and answers wherever the provider or the platform asks, until the broker's page is there.
async function returnHome(page, user, decision = 'approve') {
  for (let step = 0; step < 10; step += 1) {
    await page.waitForLoadState();
    if (isOurs(page.url())) return;
    const name = await page.locator('form').first().getAttribute('id');
    await page.locator(name === 'login' ? `button[value="${user}"]` : `button[value="${decision}"]`).click();
  }
  throw new Error(`${page.url()} does not lead back`);
}

async function open(page, url, user = 'alice') {
  await page.goto(url);
  await returnHome(page, user);
}

async function press(page, decision) {
  await page.locator(`button[value="${decision}"]`).click();
}

// Agrees on our page, and then decides at the provider.
async function goOn(page, decision = 'approve') {
  await press(page, 'approve');
  await page.waitForURL((url) => !isOurs(url));
  await returnHome(page, 'alice', decision);
}

async function judge(page, name, title) {
  const found = await heading(page);
  if (!title.test(found)) problems.push(`${name}: the heading is "${found}"`);
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${screenshots}/${name}-${size}-${colorScheme}.png`, fullPage: true });
      if (size === 'desktop') continue;
      // What it finds comes from the markup and the colours, which are the same at every size.
      const { violations } = await new AxeBuilder({ page }).setLegacyMode(true).analyze();
      for (const { id, impact, help, nodes } of violations) {
        const found = `${name}-${colorScheme}: ${id}: ${help}: ${nodes[0].html}`;
        if (['serious', 'critical'].includes(impact)) problems.push(found);
      }
    }
    const { wide, styled, small } = await page.evaluate((least) => ({
      wide: document.documentElement.scrollWidth > window.innerWidth,
      styled: [...document.styleSheets].some((sheet) => sheet.cssRules.length > 0),
      small: [...document.querySelectorAll('button, a.button')].some((target) => target.offsetHeight < least),
    }), SMALLEST_TARGET);
    if (wide) problems.push(`${name}-${size}: is wider than the screen`);
    if (!styled) problems.push(`${name}-${size}: has no style sheet`);
    if (small) problems.push(`${name}-${size}: has a button that is hard to hit`);
  }
}

const visits = {
  async completed(url) {
    const page = await person();
    await open(page, url);
    await judge(page, 'consent', /^Connect /);
    await goOn(page);
    await judge(page, 'done', /^Connected$/);
  },
  async denied(url) {
    const page = await person();
    await open(page, url);
    await press(page, 'deny');
    await page.waitForLoadState();
    await judge(page, 'denied', /^Denied$/);
  },
  async deniedThere(url) {
    const page = await person();
    await open(page, url);
    await goOn(page, 'deny');
    await judge(page, 'denied-there', /^Denied$/);
  },
  async expired(url) {
    const page = await person();
    await open(page, url);
    await judge(page, 'expired', /^Too late$/);
  },
  async foreign(url) {
    const page = await person();
    await open(page, url, 'bob');
    await judge(page, 'wrong-user', /somebody else/);
  },
  // The provider does not answer: what stays on the screen is our last page.
  async leaving(url) {
    const page = await person();
    await open(page, url);
    await page.context().route((target) => !isOurs(target), (route) => route.abort('aborted'));
    await press(page, 'approve');
    await page.locator('a.button').waitFor();
    await judge(page, 'leaving', /^On to /);
  },
  async unknown(url) {
    const page = await person();
    await page.goto(url);
    await judge(page, 'unknown', /^Not found$/);
  },
  // By keyboard alone, and without scripts.
  async scriptless(url) {
    const page = await person({ javaScriptEnabled: false });
    await open(page, url);
    const agree = page.locator('button[value="approve"]');
    for (let presses = 0; !(await agree.evaluate((button) => button.matches(':focus'))); presses += 1) {
      if (presses > 20) throw new Error('the button cannot be reached by keyboard');
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Enter');
    await page.waitForURL((target) => !isOurs(target));
    await returnHome(page, 'alice');
    const found = await heading(page);
    if (found !== 'Connected') problems.push(`without scripts: the heading is "${found}"`);
  },
};

await Promise.all(Object.entries(visits).map(async ([name, visit]) => {
  await visit(flows[name]).catch((error) => problems.push(`${name}: ${error}`));
}));
await browser.close();
for (const problem of problems) console.log(problem);
process.exitCode = Math.min(problems.length, 1);
