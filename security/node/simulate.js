// One line of JSON in, one out: {documents, requests} -> ["Allowed" | "ImplicitlyDenied" | "ExplicitlyDenied", ...].
// A request names its documents by key, so that a policy that a thousand requests are held against is sent once.
import { stdin, stdout } from 'node:process'
import { createInterface } from 'node:readline'
import { runSimulation, runUnsafeSimulation } from '@cloud-copilot/iam-simulate'

// A statement about other actions has no part in an answer: left away, it costs no time.
const patterns = new Map()
const matches = (pattern, action) => {
  if (!patterns.has(pattern)) {
    const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*').replaceAll('?', '.')
    patterns.set(pattern, new RegExp(`^${escaped}$`, 'i'))
  }
  return patterns.get(pattern).test(action)
}
const about = (policy, action) => policy && {
  ...policy,
  Statement: policy.Statement.filter((one) => !one.Action || [one.Action].flat().some((it) => matches(it, action)))
}

for await (const line of createInterface({ input: stdin })) {
  const { documents, requests } = JSON.parse(line)
  const results = []
  for (const request of requests) {
    const { principal, action, resource, account, context, checked, identity, boundary, resourcePolicy, endpoint } = request
    const named = (keys) => keys.map((key) => ({ name: key, policy: about(documents[key], action) }))
    const simulation = {
      request: { principal, action, resource: { resource, accountId: account }, contextVariables: context },
      identityPolicies: named(identity),
      resourcePolicy: resourcePolicy ? about(documents[resourcePolicy], action) : undefined,
      permissionBoundaryPolicies: boundary ? named(boundary) : undefined,
      vpcEndpointPolicies: endpoint ? named([endpoint]) : undefined,
      serviceControlPolicies: [],
      resourceControlPolicies: []
    }
    if (!checked) {
      results.push(runUnsafeSimulation(simulation, {}))
      continue
    }
    const answer = await runSimulation(simulation, {})
    // A key that the action does not know would be dropped, and a condition never met: a row that proves nothing.
    const ignored = answer.result?.ignoredContextKeys ?? []
    if (answer.resultType === 'error') results.push(`error: ${JSON.stringify(answer.errors)}`)
    else if (ignored.length) results.push(`error: ${action} has no condition key ${ignored}`)
    else results.push(answer.overallResult)
  }
  stdout.write(JSON.stringify(results) + '\n')
}
