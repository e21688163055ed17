// What to try first with the built-in pair, and the tools that it was trained with.

export const WEATHER_TOOL = `[
  {
    "type": "function",
    "function": {
      "name": "get_weather",
      "description": "Current weather in a city",
      "parameters": {
        "type": "object",
        "properties": { "city": { "type": "string" } },
        "required": ["city"]
      }
    }
  }
]`;

const REASONER = [
  { text: "What is 17 + 25?", about: "thinks before it answers" },
  { text: "What is the weather in Paris?", about: "calls a tool", tools: WEATHER_TOOL },
  { text: "What can you do?", about: "tells of itself" },
];
const NARRATOR = [
  { text: "Describe an old tavern by the sea.", about: "tells a scene" },
  { text: "Hello!", about: "greets" },
];

/** Examples for a model or preset; only the built-in ones have any. */
export function examplesFor(model) {
  const name = model?.parent ?? model?.id ?? "";
  if (name === "demo-reasoner") return REASONER;
  return name === "demo-narrator" ? NARRATOR : [];
}
