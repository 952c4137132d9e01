output "project_name" {
  description = "The CodeBuild project that builds the image."
  value       = aws_codebuild_project.this.name
}

output "repository_url" {
  description = "The repository, as docker names it: <registry>/<name>-hosting."
  value       = aws_ecr_repository.this.repository_url
}
