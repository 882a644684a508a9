// A certified OpenID provider (npm `oidc-provider`), set up as the broker's provider and as the platform's issuer.
// Everything is in memory and on loopback. It ends when its standard input does, so it cannot outlive its test.
//
//     node server.mjs HOST     started where `oidc-provider` is installed; prints its issuer once it serves
//
// Beside the protocol there is a door for the test:
//     POST /test/lifetime      {"seconds": 2}: how long the access tokens live that are issued from now on
//     GET  /test/refreshes     {"tokens": [...], "refused": 0}: every refresh token so far, and how many refreshes failed
//     and those of storm.mjs
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Storm } from './storm.mjs';

// It warns that all this is not for production. What goes wrong is an exception, and seen.
console.warn = console.info = () => {};
const place = createRequire(`${process.cwd()}/`).resolve('oidc-provider');
const { default: Provider, errors } = await import(place);
const { default: MemoryAdapter } = await import(new URL('adapters/memory_adapter.js', pathToFileURL(place)));

const host = process.argv[2] ?? '127.0.0.1';
const API_SCOPES = ['calendar.read', 'calendar.write'];
const PLATFORM = 'urn:claviger';
const HOUR = 3600;

let lifetime = HOUR;
const refreshes = { tokens: [], refused: 0 };

// Native clients may be sent back to any loopback port (RFC 8252 §7.3): the broker's is not known yet.
const client = (id, ...paths) => ({
  client_id: id,
  client_secret: `${id}-secret`,
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: paths.map((path) => `http://127.0.0.1${path}`),
});

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

// The adapter's own store forgets what lies a thousand entries back, and with it the grants of living connections.
const everything = new Map();
class Adapter extends MemoryAdapter {
  constructor(model) {
    super(model, everything);
  }
}

const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'test' };

const configuration = {
  adapter: Adapter,
  clients: [
    client('broker', '/callback', '/oauth/callback'),
    client('sign-in', '/login/callback'),
    client('platform', '/callback'),
  ],
  jwks: { keys: [key] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  scopes: ['openid', 'offline_access', ...API_SCOPES],
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  clockTolerance: 0,
  pkce: { required: () => true },
  issueRefreshToken: (_ctx, { clientId }, code) => clientId === 'broker' && code.scopes.has('offline_access'),
  expiresWithSession: () => false,
  // A used refresh token that comes again takes its whole grant with it.
  rotateRefreshToken: true,
  responseTypes: ['code'],
  ttl: {
    AccessToken: () => lifetime,
    AuthorizationCode: HOUR,
    Grant: 24 * HOUR,
    IdToken: HOUR,
    Interaction: HOUR,
    RefreshToken: 24 * HOUR,
    Session: 24 * HOUR,
  },
  features: {
    devInteractions: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(_ctx, resource) {
        if (resource !== PLATFORM) throw new errors.InvalidTarget();
        const jwt = { sign: { alg: 'RS256' } };
        return { scope: 'claviger', audience: 'claviger', accessTokenTTL: 24 * HOUR, accessTokenFormat: 'jwt', jwt };
      },
    },
  },
};

const server = createServer();
await new Promise((listening) => server.listen(0, host, listening));
const issuer = `http://${host}:${server.address().port}`;
const provider = new Provider(issuer, configuration);
const storm = new Storm(issuer, key);

async function json(request) {
  let body = '';
  for await (const piece of request) body += piece;
  return body ? JSON.parse(body) : {};
}

provider.on('grant.success', (ctx) => {
  if (ctx.body.refresh_token) refreshes.tokens.push(ctx.body.refresh_token);
});
provider.on('grant.error', (ctx) => {
  if (ctx.oidc?.params?.grant_type === 'refresh_token') refreshes.refused += 1;
});
provider.use(async (ctx, next) => {
  switch (`${ctx.method} ${ctx.path}`) {
    case 'POST /test/lifetime':
      lifetime = (await json(ctx.req)).seconds;
      ctx.body = {};
      break;
    case 'POST /test/platform-token':
      ctx.body = storm.platformToken(await json(ctx.req));
      break;
    case 'POST /test/approve':
      ctx.body = await storm.approve(provider, await json(ctx.req));
      break;
    case 'POST /test/storm':
      ctx.body = storm.begin(await json(ctx.req));
      break;
    case 'POST /test/killed':
      ctx.body = storm.killed((await json(ctx.req)).at);
      break;
    case 'GET /test/cycled':
      ctx.body = await storm.cycled(Number(ctx.query.more));
      break;
    case 'GET /test/log':
      ctx.body = { entries: storm.log, busy: storm.busy };
      break;
    case 'POST /token':
      await storm.token(ctx, next);
      break;
    case 'GET /test/refreshes':
      ctx.body = refreshes;
      break;
    default:
      await next();
  }
});

server.on('request', provider.callback());
process.stdin.resume().on('end', () => process.exit());
console.log(issuer);
