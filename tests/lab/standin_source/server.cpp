// A stand-in for llama-server: answers as one that has its key and its model's name, and computes nothing.
#include <arpa/inet.h>
#include <fstream>
#include <iostream>
#include <map>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

static std::string first_line(const std::string &path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

static void answer(int client, const std::string &status, const std::string &body) {
  const std::string text = "HTTP/1.1 " + status + "\r\nConnection: close\r\nContent-Length: " +
                           std::to_string(body.size()) + "\r\n\r\n" + body;
  if (write(client, text.data(), text.size()) < 0) std::cerr << "a client has gone\n";
}

// Head and body of a request, as far as they came.
static std::string request(int client) {
  std::string text;
  char part[4096];
  for (ssize_t count; (count = read(client, part, sizeof part)) > 0;) {
    text.append(part, count);
    const auto end = text.find("\r\n\r\n");
    if (end == std::string::npos) continue;
    const auto length = text.find("Content-Length: ");
    const std::size_t body = length < end ? std::stoul(text.substr(length + 16)) : 0;
    if (text.size() >= end + 4 + body) break;
  }
  return text;
}

static void reply(int client, const std::string &name, const std::string &key) {
  const std::string text = request(client);
  if (text.rfind("GET /health ", 0) == 0) return answer(client, "200 OK", "{\"status\": \"ok\"}");
  if (text.find("Authorization: Bearer " + key + "\r\n") == std::string::npos)
    return answer(client, "401 Unauthorized", "{}");
  if (text.rfind("GET /metrics ", 0) == 0)
    return answer(client, "200 OK", "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n");
  answer(client, "200 OK",
         "{\"model\": \"" + name + "\", \"choices\": [{\"message\": {\"content\": \"1\"}}], "
         "\"usage\": {\"completion_tokens\": 1}}");
}

int main(int count, char **words) {
  std::map<std::string, std::string> options;
  for (int number = 1; number < count; number++) {
    if (words[number] == std::string("--version")) return std::cerr << "version: stand-in\n", 0;
    if (number + 1 < count) options[words[number]] = words[number + 1];
  }
  const std::string key = first_line(options["--api-key-file"]);
  std::ifstream model(options["--model"]);
  char magic[4] = {};
  if (!model.read(magic, 4) || std::string(magic, 4) != "GGUF" || key.empty()) {
    std::cerr << "no model or no key\n";
    return 1;
  }
  const int server = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(std::stoi(options["--port"]));
  inet_pton(AF_INET, options["--host"].c_str(), &address.sin_addr);
  if (bind(server, reinterpret_cast<sockaddr *>(&address), sizeof address) || listen(server, 16)) {
    std::cerr << "cannot listen\n";
    return 1;
  }
  for (int client; (client = accept(server, nullptr, nullptr)) >= 0; close(client)) reply(client, options["--alias"], key);
  return 1;
}
