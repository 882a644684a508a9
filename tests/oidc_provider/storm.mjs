// What goes wrong at the token endpoint in a storm, and the log that tells afterwards what was lost and why.
//
// Beside the doors of server.mjs:
//     POST /test/platform-token  {"user": "u1"} → {"token": "..."}: as the platform's application gets it
//     POST /test/approve         {"user": "u1", "url": "..."} → {"url": "..."}: where the user is sent who says yes
//     POST /test/storm           {"seed": 1, "busy": 20, "lost": 4, "late": 2, "slow": 100}: per mille of refreshes
//     POST /test/killed          {"at": 1764000000000}: the broker died then → {"ended": 2}: users whose grant is gone
//     GET  /test/cycled?more=50  answers once everybody who will be was refreshed since then, and so many more
//     GET  /test/log             [{"kind": "rotated", "user": "u1", "presented": 3, "fate": "slow", "at": 17640...}, ...]:
//                                in milliseconds, when the answer had left or the broker was killed
import { createPrivateKey, randomUUID, sign } from 'node:crypto';
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises';

const LATE = 13000; // longer than the broker's time-out
const SLOW = 400;

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

// mulberry32
const dice = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

export class Storm {
  log = [];
  kills = 0;
  busy = 0;
  #odds = { busy: 0, lost: 0, late: 0, slow: 0 };
  #roll = dice(0);
  // Of each refresh token: whose it is, and the how-manieth.
  #tokens = new Map();
  #codes = new Map();
  // Of each user: whether he was refreshed since the last kill, or never will be again.
  #settled = new Map();
  #since = 0;
  #waiting = [];

  constructor(issuer, jwk) {
    this.issuer = issuer;
    this.key = createPrivateKey({ key: jwk, format: 'jwk' });
    this.kid = jwk.kid;
  }

  platformToken({ user }) {
    const now = Math.floor(Date.now() / 1000);
    const header = { alg: 'RS256', typ: 'at+jwt', kid: this.kid };
    const claims = { iss: this.issuer, aud: 'claviger', sub: user, client_id: 'platform', scope: 'claviger', jti: randomUUID(), iat: now, exp: now + 24 * 3600 };
    const text = `${base64(header)}.${base64(claims)}`;
    return { token: `${text}.${sign('sha256', Buffer.from(text), this.key).toString('base64url')}` };
  }

  async approve(provider, { user, url }) {
    const asked = Object.fromEntries(new URL(url).searchParams);
    const client = await provider.Client.find(asked.client_id);
    const grant = new provider.Grant({ accountId: user, clientId: client.clientId });
    grant.addOIDCScope(asked.scope);
    const code = new provider.AuthorizationCode({
      accountId: user,
      client,
      grantId: await grant.save(),
      gty: 'authorization_code',
      redirectUri: asked.redirect_uri,
      scope: asked.scope,
      nonce: asked.nonce,
      codeChallenge: asked.code_challenge,
      codeChallengeMethod: asked.code_challenge_method,
      authTime: Math.floor(Date.now() / 1000),
    });
    const answer = new URL(asked.redirect_uri);
    const value = await code.save();
    this.#codes.set(value, user);
    for (const [name, text] of Object.entries({ code: value, state: asked.state, iss: this.issuer })) answer.searchParams.set(name, text);
    return { url: answer.href };
  }

  begin({ seed, ...odds }) {
    this.#roll = dice(seed);
    this.#odds = odds;
    return {};
  }

  killed(at) {
    this.kills += 1;
    this.#since = 0;
    let ended = 0;
    for (const [user, state] of this.#settled) {
      if (state === 'ended') ended += 1;
      else this.#settled.set(user, 'awaited');
    }
    this.#note({ kind: 'killed', at });
    return { ended };
  }

  async cycled(more) {
    await new Promise((resolve) => {
      this.#waiting.push({ more, resolve });
      this.#tell();
    });
    return {};
  }

  // Around every token request.
  async token(ctx, next) {
    const kills = this.kills;
    // One roll a request, whatever it is for: what it is for stands in the body.
    let fate = this.#fate();
    if (fate === 'busy') {
      this.busy += 1;
      ctx.status = 503;
      ctx.set('retry-after', '1');
      ctx.body = 'busy';
      return;
    }
    if (fate === 'slow') await pause(this.#roll() * SLOW);
    await next();
    const asked = ctx.oidc?.params ?? {};
    const given = ctx.body?.refresh_token;
    if (asked.grant_type === 'authorization_code' && given) {
      const user = this.#codes.get(asked.code);
      this.#tokens.set(given, { user, number: 0 });
      this.#settled.set(user, 'awaited');
    }
    if (asked.grant_type !== 'refresh_token') return;
    const presented = this.#tokens.get(asked.refresh_token);
    if (!presented) return;
    const { user, number } = presented;
    // Who has gone away may have done so behind a request that is read only now: then the next turn reads that.
    await turn();
    await turn();
    const unheard = () => kills !== this.kills || !ctx.writable;
    if (given) {
      this.#tokens.set(given, { user, number: number + 1 });
      this.#settled.set(user, 'refreshed');
      if (unheard()) fate = 'unheard';
      const entry = { kind: 'rotated', user, presented: number, fate: fate ?? 'answered' };
      ctx.res.once('finish', () => (entry.at = Date.now()));
      this.#note(entry);
      if (fate === 'late') await pause(LATE);
      if (fate === 'lost' || fate === 'late') {
        ctx.respond = false;
        ctx.req.socket.destroy();
      }
      if (fate === 'slow') await pause(this.#roll() * SLOW);
      if (unheard() && entry.fate !== 'lost' && entry.fate !== 'late') entry.fate = 'unheard';
    } else {
      this.#settled.set(user, 'ended');
      this.#note({ kind: 'refused', user, presented: number, fate: ctx.body?.error ?? String(ctx.status) });
    }
  }

  #fate() {
    let at = this.#roll() * 1000;
    for (const [fate, odds] of Object.entries(this.#odds)) {
      if (at < odds) return fate;
      at -= odds;
    }
    return undefined;
  }

  #note(entry) {
    this.log.push(entry);
    this.#since += 1;
    this.#tell();
  }

  #tell() {
    const everybody = ![...this.#settled.values()].includes('awaited');
    // Who was given up after two lost answers never comes again: everybody else has come by then.
    const rounds = everybody ? 1 : 3;
    const over = ({ more }) => this.#since >= rounds * this.#settled.size + more;
    this.#waiting.filter(over).forEach(({ resolve }) => resolve());
    this.#waiting = this.#waiting.filter((waiting) => !over(waiting));
  }
}
