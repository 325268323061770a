// What the npm SDK sees of a gateway: node client.mjs SCENARIO ARGUMENT…, each argument and each line it prints
// one JSON value. On stderr stands the status of each answer, those that the SDK retries included. Where and as
// whom it calls is in OPENAI_BASE_URL and OPENAI_API_KEY, as users have it.
import OpenAI from "openai";

const client = new OpenAI({
  fetch: async (url, init) => {
    const response = await fetch(url, init);
    console.error(response.status);
    return response;
  },
});

const scenarios = {
  whole: (request) => client.chat.completions.create(request),

  // Each chunk is printed when it is there.
  async stream(request, options) {
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true }, options)) tell(chunk);
  },

  // The helper that puts a stream together, twice: the second time its own message is part of the history.
  async conversation(request) {
    const first = await client.chat.completions.stream(request).finalChatCompletion();
    tell(first);
    const messages = [...request.messages, first.choices[0].message, { role: "user", content: "And who am I?" }];
    return client.chat.completions.stream({ ...request, n: 1, messages }).finalChatCompletion();
  },

  models: async () => (await client.models.list()).data,

  model: (id) => client.models.retrieve(id),

  images: (request) => client.images.generate(request),

  // Which class an error is raised as.
  async error(request, options) {
    try {
      await scenarios.stream(request, options);
    } catch (error) {
      const { status, code, type, param, message } = error;
      return { class: error.constructor.name, status, code, type, param, message };
    }
  },
};

function tell(value) {
  console.log(JSON.stringify(value));
}

const [name, ...given] = process.argv.slice(2);
const answer = await scenarios[name](...given.map((argument) => JSON.parse(argument)));
if (answer !== undefined) tell(answer);
